"""The rollout rules in the real trainer: what they decide is what is trained on."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from datasets import Dataset
from test_resume import StopAt
from toy import EntropyGiven, build_trainer, few, halves, logged, number, parameters, same
from transformers import AutoModelForCausalLM

from trl_entropy.rollouts import RolloutRule
from trl_entropy.rollouts.plan import key_of
from trl_entropy.rollouts.rule import TEMPERATURES


def solved(completions, **kwargs) -> list[float]:
    return [1.0] * len(completions)


class Watched(EntropyGiven):
    """Keeps the prompts and the batch of every rollout."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rounds, self.rollouts = [], []
        rollouts = self.seam.rollouts
        sample, planned = rollouts.sample, rollouts.planned

        def sampled(generate, rows):
            self.rounds.append([number(row["prompt"]) for row in rows])
            return sample(generate, rows)

        def kept(generate, inputs):
            self.rollouts.append(planned(generate, inputs))
            return self.rollouts[-1]

        rollouts.sample, rollouts.planned = sampled, kept


# Dynamic sampling


def test_dynamic_sampling_trains_on_groups_with_variance(build):
    rules = {"dynamic_sampling": {"max_rounds": 9}}
    plain = build(trainer_class=Watched, reward_funcs=halves, max_steps=8, per_device_train_batch_size=16)
    sampled = build(
        trainer_class=Watched, reward_funcs=halves, max_steps=8, per_device_train_batch_size=16, rollout_rules=rules
    )
    plain.train()
    sampled.train()
    zero = {
        name: [int((rollout.rewards.amax(1) == rollout.rewards.amin(1)).sum()) for rollout in trainer.rollouts]
        for name, trainer in {"plain": plain, "sampled": sampled}.items()
    }
    assert sum(zero["plain"]) >= 8  # of 32 groups
    assert zero["sampled"] == [0] * 8
    assert len(sampled.rounds) > 8
    assert logged(sampled, "rollout/groups_filled") == [0.0] * 8
    for rollout in sampled.rollouts:
        assert rollout.rewards.shape == (4, 4)
        batch = rollout.batch
        assert len(batch["completion_ids"]) == len(batch["advantages"]) == 16
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
        assert (batch["advantages"] != 0).all()
        # float32: TRL divides by the deviation + 1e-4
        assert batch["advantages"].view(4, 4).mean(1) == pytest.approx(torch.zeros(4), abs=1e-6)


def shorter(completions, **kwargs) -> list[float]:
    """A penalty that nearly all completions of a group differ by."""
    return [-len(completion) / 100 for completion in completions]


@pytest.mark.parametrize("by", ["reward", "correct", "halves"])
def test_dynamic_sampling_by_one_of_the_rewards(build, by):
    rules = {"dynamic_sampling": {"max_rounds": 9, "by": by}}
    trainer = build(trainer_class=Watched, reward_funcs=[halves, shorter], max_steps=4, rollout_rules=rules)
    trainer.train()
    kept = []
    for rollout in trainer.rollouts:
        prompts = trainer.processing_class.batch_decode(rollout.batch["prompt_ids"], skip_special_tokens=True)
        verified = torch.tensor(halves(prompts, rollout.completions)).view(2, 4)
        assert rollout.rewards == pytest.approx(verified + torch.tensor(shorter(rollout.completions)).view(2, 4))
        if by != "reward":
            assert (verified.amax(1) > verified.amin(1)).all()
        kept += [number(prompt) for prompt in prompts]
    # below 8 all are right, and differ by the penalty alone
    assert (min(kept) < 8) is (by == "reward")


def test_reward_function_that_there_is_none_of_is_refused(build):
    with pytest.raises(ValueError, match=r"unknown reward function 'half'.*Available: halves, shorter \(in rollout_"):
        build(reward_funcs=[halves, shorter], rollout_rules={"dynamic_sampling": {"by": "half"}})


def test_batch_of_several_rounds_holds_prompts_and_completions_together(build):
    rules = {"dynamic_sampling": {"max_rounds": 9}}
    trainer = build(trainer_class=Watched, reward_funcs=halves, max_steps=4, rollout_rules=rules)
    trainer.train()
    assert len(trainer.rounds) > 4
    for rollout in trainer.rollouts:
        batch, tokenizer = rollout.batch, trainer.processing_class
        prompts = tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
        assert prompts[::4] == prompts[3::4]
        assert all(number(prompt) >= 8 for prompt in prompts)
        texts = tokenizer.batch_decode(batch["completion_ids"], skip_special_tokens=True)
        assert texts == rollout.completions
        rewards = torch.tensor(halves(prompts, texts))
        assert torch.equal(rollout.rewards.flatten(), rewards)
        assert torch.equal(batch["rewards"], rewards)
        for ids, mask in (
            (batch["prompt_ids"], batch["prompt_mask"]),
            (batch["completion_ids"], batch["completion_mask"]),
        ):
            assert torch.equal(mask.bool(), ids != 0)


def test_dynamic_sampling_ends_when_its_rounds_are_used_up(build):
    rules = {"dynamic_sampling": {"max_rounds": 2}}
    trainer = build(trainer_class=Watched, reward_funcs=solved, max_steps=2, rollout_rules=rules)
    trainer.train()
    assert len(trainer.rounds) == 6
    assert logged(trainer, "rollout/groups_sampled") == [6.0, 6.0]
    assert logged(trainer, "rollout/groups_kept") == [0.0, 0.0]
    assert logged(trainer, "rollout/groups_filled") == [2.0, 2.0]
    assert all(len(rollout.batch["advantages"]) == 8 for rollout in trainer.rollouts)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2},
        {"off_policy_updates": 2, "num_iterations": 2},
        {"off_policy_updates": 2, "beta": 0.1, "token_weights": {"high_entropy": {"fraction": 0.5}}},
        {"loss_type": "grpo", "mask_truncated_completions": True, "loss_terms": {"ce_gppo": {}}},
        {"advantage_bonuses": {"quantile_advantage": {}}, "entropy_measures": "full"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_dynamic_sampling_goes_with_what_else_there_is(run, settings):
    rules = {"dynamic_sampling": {}}
    trainer = run(reward_funcs=halves, rollout_rules=rules, num_generations=4, max_steps=4, **settings)
    assert trainer.state.global_step == 4
    assert all(value.isfinite().all() for value in parameters(trainer).values())


# Perplexity window


def perplexity(model, tokenizer, prompt: str) -> float:
    """From the whole logits of one prompt, without padding."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.double().log_softmax(-1)
    chosen = logps[0, :-1].gather(1, ids[0, 1:, None])
    return float((-chosen.mean()).exp())


def test_perplexities_are_those_of_the_policy(build, model_dir):
    dataset = Dataset.from_dict({"prompt": ["1=", "23+4=", "1+2+3+4=", "abc", "7-7="]})
    trainer = build()
    trainer.train_dataset = dataset
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    expected = [perplexity(model, trainer.processing_class, prompt) for prompt in dataset["prompt"]]
    assert len(set(expected)) == 5
    # float32 in a padded batch
    assert trainer.seam.rollouts.perplexities(list(range(5))) == pytest.approx(expected, rel=1e-5)
    trainer.args.per_device_train_batch_size = 2
    assert trainer.seam.rollouts.perplexities([3, 1]) == pytest.approx([expected[3], expected[1]], rel=1e-5)


def test_window_slides_from_low_to_high_perplexity(build, model_dir):
    # a learning rate of 0 leaves the perplexities as they are
    settings = {"max_steps": 8, "learning_rate": 0.0, "rollout_rules": {"perplexity_window": {"share": 0.125}}}
    trainer = build(trainer_class=Watched, **settings)
    trainer.train()
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    of = {n: perplexity(model, trainer.processing_class, f"{n}=") for n in range(16)}
    order = sorted(of, key=of.get)
    # 2 prompts of 16 candidates, which are all there are: places floor(step / 8 * 14) and the next
    expected = [[order[step * 14 // 8 + place] for place in range(2) for _ in range(4)] for step in range(8)]
    assert trainer.rounds == expected
    means = [(of[row[0]] + of[row[4]]) / 2 for row in expected]
    assert logged(trainer, "rollout/perplexity") == pytest.approx(means, rel=1e-4)  # rounded in the log
    everything = sum(of.values()) / 16
    assert logged(trainer, "rollout/perplexity_of_candidates") == pytest.approx([everything] * 8, rel=1e-4)


# Curriculum


def test_curriculum_goes_through_its_stages(build, dataset):
    trainer = build(trainer_class=Watched, max_steps=8, rollout_rules={"curriculum": {"column": "hard", "count": 2}})
    assert trainer.seam.rollouts.plan.stage == 0
    trainer.train()
    first, second = trainer.rounds[:4], trainer.rounds[4:]
    hard = dict(zip(map(number, dataset["prompt"]), dataset["hard"], strict=True))
    assert {n for row in first for n in row} == {n for n, value in hard.items() if value < 8}
    assert {n for row in second for n in row} == {n for n, value in hard.items() if value >= 8}
    assert logged(trainer, "rollout/stage") == [0.0] * 4 + [1.0] * 4
    trainer.train()  # a second call begins anew
    assert trainer.rounds[8:] == first + second


# Temperature of a prompt


@dataclass(frozen=True)
class Hotter(RolloutRule):
    """Every prompt at one temperature."""

    acts: ClassVar[frozenset[str]] = frozenset({TEMPERATURES})
    value: float = 1.3

    def temperature(self, memory, key, temperature):
        return self.value


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps_per_generation": 2, "num_iterations": 2},
        {"beta": 0.1},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": True},
        {"temperature": 0.8},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_one_temperature_for_all_prompts_is_trls_temperature(run, settings):
    rule = {"rollout_rules": {f"{__name__}.Hotter": {}}}
    hotter = run(**settings, **rule)
    trl = run(plain=True, **{**settings, "temperature": 1.3})
    # states are divided instead of logits, and by 1.3 / 0.8 before 0.8: rounding
    for name in ("loss", "entropy", "reward", "grad_norm"):
        assert logged(hotter, name) == pytest.approx(logged(trl, name), rel=1e-4, abs=1e-5)
    ours, theirs = parameters(hotter), parameters(trl)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-4
    values = logged(hotter, "rollout/temperature")
    assert values == pytest.approx([1.3] * len(values))


def test_entropy_at_one_is_taken_at_one(run):
    settings = {"max_steps": 1, "entropy_measures": "full"}
    hotter = run(**settings, rollout_rules={f"{__name__}.Hotter": {}})
    trl_at = run(**settings, temperature=1.3)
    name = "entropy/temperature_1"
    assert logged(hotter, name) == pytest.approx(logged(trl_at, name), rel=1e-4)
    assert logged(hotter, name)[0] < 0.98 * logged(hotter, "entropy")[0]


def test_solved_prompts_are_sampled_hotter_at_the_next_visit(build):
    rules = {"prompt_temperature": {"step": 0.1, "highest": 1.25}}
    # 8 rollouts of 4 prompts: every prompt twice
    trainer = build(
        trainer_class=Watched, reward_funcs=halves, max_steps=16, per_device_train_batch_size=16, rollout_rules=rules
    )
    trainer.train()
    seen: dict[int, int] = {}
    for prompts, rollout in zip(trainer.rounds, trainer.rollouts, strict=True):
        expected = []
        for n, rewards in zip(prompts[::4], rollout.rewards, strict=True):
            expected += [min(1.0 + 0.1 * seen.get(n, 0), 1.25)] * 4
            seen[n] = max(seen.get(n, 0) + (1 if bool((rewards > 0.5).all()) else -1), 0)
        assert rollout.batch["temperatures"].tolist() == pytest.approx(expected, rel=1e-6)
    assert max(seen.values()) >= 3


def test_prompts_are_remembered_as_the_dataset_has_them(model_dir, tmp_path):
    # the tokenizer has no Z, so that its text of these prompts is another
    prompts = Dataset.from_dict({"prompt": [f"Z{n}=" for n in range(16)], "solution": [str(n) for n in range(16)]})
    rules = {"prompt_temperature": {}}
    settings = {"reward_funcs": solved, "per_device_train_batch_size": 16, "rollout_rules": rules}
    trainer = build_trainer(model_dir, prompts, tmp_path, **settings)
    trainer.train()
    (memory,) = trainer.seam.rollouts.plan.memory.values()
    assert memory.keys() <= {key_of(row["prompt"]) for row in prompts}
    assert len(memory) == 3 * 4


def test_rows_are_scored_at_the_temperature_of_their_prompt(build, model_dir):
    trainer = build(
        reward_funcs=halves, max_steps=1, per_device_train_batch_size=16, rollout_rules={"prompt_temperature": {}}
    )
    inputs = trainer.accelerator.prepare(trainer.get_train_dataloader())
    batch = trainer._generate_and_score_completions(next(iter(inputs)))
    batch["temperatures"] = torch.linspace(0.7, 1.9, 16)
    seen = []
    trainer.observe = lambda tokens, effective: seen.append(tokens)
    trainer._compute_loss(trainer.model, batch)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    model, length = AutoModelForCausalLM.from_pretrained(model_dir), batch["completion_ids"].shape[1]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1].double()
    logps = (logits / batch["temperatures"].view(-1, 1, 1)).log_softmax(-1)
    chosen = logps.gather(-1, batch["completion_ids"].unsqueeze(-1)).squeeze(-1)
    mask = batch["completion_mask"].bool()
    # float32 against float64
    assert seen[0].logps[mask].double() == pytest.approx(chosen[mask], abs=1e-5)
    assert seen[0].entropies[mask].double() == pytest.approx(-(logps.exp() * logps).sum(-1)[mask], abs=1e-5)


# Stored solutions


def exact(prompts, completions, **kwargs) -> list[float]:
    """Right is what begins with the prompt's number and a letter."""
    right = zip(prompts, completions, strict=True)
    return [float(completion.startswith(f"{number(prompt)}a")) for prompt, completion in right]


def test_wrong_completions_give_way_to_stored_solutions(build):
    rules = {"offline_injection": {"column": "stored"}}
    settings = {"max_steps": 4, "max_completion_length": 6, "rollout_rules": rules}
    trainer = build(trainer_class=Watched, reward_funcs=exact, **settings)
    trainer.train()
    shares = []
    for prompts, rollout in zip(trainer.rounds, trainer.rollouts, strict=True):
        batch, texts = rollout.batch, rollout.completions
        for group in range(2):
            rows, n = slice(4 * group, 4 * group + 4), prompts[4 * group]
            # two solutions fit, the third is too long; an odd number has none
            expected = [f"{n}a", f"{n}ab"] if n % 2 == 0 else []
            assert batch["offline"][rows].tolist() == [place < len(expected) for place in range(4)]
            assert texts[rows][: len(expected)] == expected
            assert rollout.rewards[group].tolist() == [float(place < len(expected)) for place in range(4)]
            assert bool((batch["advantages"][rows] != 0).all()) is bool(expected)
        ends = batch["completion_ids"].gather(1, batch["completion_mask"].sum(1, keepdim=True) - 1)
        assert (ends[batch["offline"]] == 1).all()  # <eos>
        shares.append(batch["offline"].float().mean().item())
    assert logged(trainer, "rollout/injected") == pytest.approx(shares)
    assert 0 < sum(shares) < 2.0


def test_injected_tokens_have_a_loss_of_their_own(build):
    settings = {"max_steps": 1, "entropy_control": "offline_injection", "loss_type": "dapo", "learning_rate": 0.0}
    rules = {"offline_injection": {"column": "stored"}}
    trainer = build(trainer_class=Watched, reward_funcs=exact, rollout_rules=rules, **settings)
    seen = []
    trainer.observe = lambda tokens, effective: seen.append(tokens)
    trainer.train()
    tokens = seen[0]
    assert tokens.offline.any()
    assert not tokens.offline.all()
    probabilities = tokens.logps.double().exp()
    offline = tokens.offline.unsqueeze(1)
    advantages = tokens.advantages.double()
    per_token = torch.where(
        offline, -advantages * probabilities / (probabilities + 0.1), -advantages
    )  # on-policy: ratio 1
    loss = (per_token * tokens.mask).sum() / tokens.mask.sum()
    assert logged(trainer, "loss")[0] == pytest.approx(loss.item(), abs=1e-6)


# After an interruption

RULES = {
    "dynamic_sampling": {"dynamic_sampling": {"max_rounds": 3}},
    "perplexity_window": {"perplexity_window": {"share": 0.5}},
    "curriculum": {"curriculum": {"column": "hard"}},
    "prompt_temperature": {"prompt_temperature": {"step": 0.3, "highest": 2.0}},
    "offline_injection": {"offline_injection": {"column": "stored"}},
    "all": {
        "curriculum": {"column": "hard", "epochs": 1},
        "perplexity_window": {"share": 0.5},
        "dynamic_sampling": {"max_rounds": 2},
        "prompt_temperature": {"step": 0.3, "highest": 2.0},
        "offline_injection": {"column": "stored"},
    },
}


@pytest.mark.parametrize("name", few(RULES, 3))
def test_resumed_run_is_the_uninterrupted_one(run, tmp_path, name):
    settings = {
        **{"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "reward_funcs": halves},
        **{"rollout_rules": RULES[name], "trainer_class": Watched},
    }
    whole = run(output_dir=tmp_path / "whole", **settings)
    run(output_dir=tmp_path / "parts", callbacks=[StopAt(4)], **settings)
    second = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-4"), **settings)
    assert second.rounds == whole.rounds[-len(second.rounds) :]
    assert same(parameters(second), parameters(whole))
    assert second.control_state() == whole.control_state()


def test_rollout_that_a_checkpoint_cut_is_sampled_again(run, tmp_path):
    settings = {
        **{"max_steps": 6, "off_policy_updates": 2, "save_strategy": "steps", "save_steps": 3},
        **{"rollout_rules": {"dynamic_sampling": {}}, "trainer_class": Watched, "reward_funcs": halves},
    }
    first = run(output_dir=tmp_path, callbacks=[StopAt(3)], **settings)
    resumed = run(output_dir=tmp_path, resume=str(tmp_path / "checkpoint-3"), **settings)
    saved = first.seam.rollouts.plan.state_dict(unfinished=True)["unfinished"]
    assert [sorted(set(row)) for row in resumed.rounds[: len(saved)]] == [sorted(problems) for problems in saved]


def test_checkpoint_of_other_rules_is_refused(run, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "output_dir": tmp_path}
    run(**settings)
    checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match="has no state of rollout_rules dynamic_sampling: resume without them"):
        run(resume=checkpoint, rollout_rules={"dynamic_sampling": {}}, **settings)
