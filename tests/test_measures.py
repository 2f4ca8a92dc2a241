"""What is measured of a training step, through the trainer."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import EntropyGiven, build_trainer, even_length, few, fresh_logps, logged, moved
from toy import batch as given_batch

from trl_entropy import data
from trl_entropy.rewards import MathVerifyReward
from trl_entropy.rules.compose import combined


BATCHES = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}


class Seen(EntropyGiven):
    """Keeps what the measures are given, and the prompts' entropies by an independent computation."""

    def observe(self, tokens, effective):
        super().observe(tokens, effective)
        self.__dict__.setdefault("seen", []).append((self.state.global_step, tokens, effective))

    def observe_rollout(self, rewards, completions, contexts):
        super().observe_rollout(rewards, completions, contexts)
        self.__dict__.setdefault("rollouts", []).append((rewards, completions))

    def _compute_loss(self, model, inputs):
        if self.model.training:
            mask = inputs["prompt_mask"].bool()
            with torch.no_grad():
                logits = model(input_ids=inputs["prompt_ids"], attention_mask=mask.long()).logits
            logps = (logits.double() / self.temperature).log_softmax(-1)
            entropies = [-(row.exp() * row).sum(-1)[real][:-1] for row, real in zip(logps, mask, strict=True)]
            self.__dict__.setdefault("prompts", []).append((self.state.global_step, torch.cat(entropies)))
            self.__dict__.setdefault("batches", []).append(inputs)
        return super()._compute_loss(model, inputs)


def of_steps(pairs: list[tuple], steps: int) -> list[float]:
    return [torch.cat([values for at, values in pairs if at == step]).mean().item() for step in range(steps)]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_entropy_of_the_prompts_but_their_first_tokens(run, temperature):
    trainer = run(trainer_class=Seen, entropy_measures="full", temperature=temperature, **BATCHES)
    lengths = {row.sum().item() for inputs in trainer.batches for row in inputs["prompt_mask"]}
    assert lengths == {2, 3}  # so there is padding on the left
    # float32 against float64
    assert logged(trainer, "entropy/prompt") == pytest.approx(of_steps(trainer.prompts, 3), abs=1e-5)


def test_prompts_of_one_token_have_no_entropy(build):
    trainer = build(entropy_measures="full")
    trainer._compute_loss(trainer.model, given_batch(prompt=1))
    means = trainer.measures.end_step(lambda values: values)
    assert "entropy/prompt" not in means
    assert "entropy/temperature_1" in means


class Operations(TorchDispatchMode):
    """Counts operations."""

    number = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.number += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("level", "few"), [("basic", True), ("full", False)])
def test_basic_measures_take_few_operations(build, level, few):
    numbers = []
    for settings in ({"plain": True}, {"entropy_measures": level}):
        trainer = build(**settings)
        given = given_batch() | {"rewards": torch.ones(8)}
        with Operations() as operations:
            trainer._compute_loss(trainer.model, given)
        numbers.append(operations.number)
    assert (numbers[1] - numbers[0] <= 60) is few


def test_full_alone_asks_the_head_again(build):
    for level, wanted in (("basic", False), ("full", True)):
        trainer = build(trainer_class=Seen, entropy_measures=level)
        trainer._compute_loss(trainer.model, given_batch())
        ((_, tokens, _),) = trainer.seen
        facts = tokens.prompt_entropies, tokens.expected_discriminator, tokens.entropies_at_one
        assert [fact is not None for fact in facts] == [wanted] * 3
        trainer.model.eval()
        trainer._compute_loss(trainer.model, given_batch())
        assert trainer.seam.facts.results is None
        assert len(trainer.seen) == 1


def test_rewards_stay_with_their_completions(run):
    trainer = run(trainer_class=Seen, off_policy_updates=2, max_steps=4, **BATCHES)
    right = []
    for inputs, (_, tokens, _) in zip(trainer.batches, trainer.seen, strict=True):
        ids = inputs["completion_ids"] * inputs["completion_mask"]
        lengths = (ids > 1).sum(-1)  # without padding and the end
        expected = torch.tensor(even_length([[0] * length for length in lengths.tolist()]))
        assert torch.equal(tokens.rewards, expected)
        right.append(tokens.entropies[(tokens.rewards > 0.5).unsqueeze(1) & tokens.mask])
    steps = [at for at, *_ in trainer.seen]
    expected = of_steps(list(zip(steps, right, strict=True)), 4)
    assert logged(trainer, "entropy/correct") == pytest.approx(expected, abs=1e-5)


def test_reward_is_the_weighted_sum(run):
    def one(completions, **kwargs):
        return [1.0] * len(completions)

    def none(completions, **kwargs):
        return [None] * len(completions)

    trainer = run(trainer_class=Seen, reward_funcs=[one, none], reward_weights=[0.25, 1.0], max_steps=1)
    ((_, tokens, _),) = trainer.seen
    assert tokens.rewards.tolist() == [0.25] * 8
    assert logged(trainer, "groups/all_wrong") == [1.0]


def test_rollout_is_seen_group_by_group(run):
    trainer = run(trainer_class=Seen, off_policy_updates=2, max_steps=4, **BATCHES)
    assert len(trainer.rollouts) == 2
    for rewards, completions in trainer.rollouts:
        assert rewards.shape == (8, 4)
        assert rewards.flatten().tolist() == even_length(completions)
    right = [(rewards == 1).all(1).float().mean().item() for rewards, _ in trainer.rollouts]
    assert logged(trainer, "groups/all_correct") == right
    assert len(trainer.state.log_history) == 5  # of 4 steps and the end: once for every rollout


def test_evaluation_is_not_measured(run, dataset):
    trainer = run(trainer_class=Seen, eval_strategy="steps", eval_steps=1, eval_dataset=dataset, max_steps=2)
    assert len(trainer.rollouts) == len(trainer.seen) == 2
    names = set().union(*trainer.state.log_history)
    assert not [name for name in names if name.startswith(("eval_groups", "eval_entropy/", "eval_staleness"))]


def test_votes_are_over_the_answers_that_the_reward_reads(run):
    reward = MathVerifyReward(answer_from=("last_number",))
    trainer = run(trainer_class=Seen, entropy_measures="full", reward_funcs=reward, max_steps=1)
    ((_, completions),) = trainer.rollouts
    answers, _ = reward.verdicts(completions, ["1"] * 8)
    groups = [set(answers[start : start + 4]) - {None} for start in (0, 4)]
    assert logged(trainer, "groups/distinct_answers") == [sum(map(len, groups)) / 2]
    assert sum(map(len, groups)) > 0


def test_advantages_in_the_loss_are_those_that_are_measured(build):
    rules = {
        "token_weights": {"high_entropy": {"fraction": 0.5}, "sign": None},
        "advantage_bonuses": {"entropy_advantage": {"alpha": 0.4}},
    }
    for settings in ({}, {**rules, "negative_advantage_coef": 2.0}):
        trainer = build(trainer_class=Seen, **settings)
        inputs = given_batch()
        inputs["old_per_token_logps"] = moved(fresh_logps(trainer, inputs), by=0.3)
        trainer._compute_loss(trainer.model, inputs)
        ((_, tokens, effective),) = trainer.seen
        weights = {name: rule(tokens) for name, rule in trainer.rules.sections["token_weights"].items()}
        bonuses = {name: rule(tokens) for name, rule in trainer.rules.sections["advantage_bonuses"].items()}
        assert effective.shape == tokens.mask.shape
        expected = combined(tokens, weights, bonuses)
        assert torch.equal(torch.where(tokens.mask, effective, 0.0), expected)
        assert torch.equal(expected, tokens.advantages) is (not settings)


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({}, [0, 0, 0, 0]),
        ({"off_policy_updates": 2}, [0, 1, 0, 1]),
        ({"num_iterations": 3}, [0, 1, 2, 0]),
        ({"gradient_accumulation_steps": 2, "off_policy_updates": 2}, [0, 1, 0, 1]),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, [0, 0, 0, 0]),
    ],
)
def test_staleness_counts_updates_since_the_rollout(run, settings, updates):
    trainer = run(max_steps=4, learning_rate=0.1, **settings)
    assert logged(trainer, "staleness/updates") == updates
    # the policy is the one that generated until it is updated
    assert [value > 1e-3 for value in logged(trainer, "staleness/log_ratio")] == [count > 0 for count in updates]


def test_staleness_starts_anew_on_resume(run, tmp_path):
    settings = {"off_policy_updates": 2, "output_dir": tmp_path, "save_strategy": "steps", "save_steps": 1}
    run(max_steps=3, **settings)
    resumed = run(resume=str(tmp_path / "checkpoint-3"), max_steps=5, **settings)
    assert logged(resumed, "staleness/updates")[:4] == [0, 1, 0, 0]  # step 4 generates anew
    assert len(logged(resumed, "entropy_change/observed")) == 4  # of steps 2 to 5: what was measured survives


def test_observed_change_is_that_of_the_logged_entropy(run):
    trainer = run(max_steps=5, entropy_measures="full")
    entropies = logged(trainer, "entropy")
    changes = [after - before for before, after in zip(entropies, entropies[1:], strict=False)]
    assert logged(trainer, "entropy_change/observed") == pytest.approx(changes, abs=1e-5)
    parts = [logged(trainer, f"entropy_change/predicted_{sign}") for sign in ("positive", "negative")]
    sums = [sum(pair) for pair in zip(*parts, strict=True)]
    assert logged(trainer, "entropy_change/predicted") == pytest.approx(sums, abs=1e-7)


def sum_is_right(completions, solution, **kwargs) -> list[float]:
    """Whether the numbers of the completion add up to the solution, as the problems of the embedded policy ask."""
    sums = [sum(map(int, re.findall("[0-9]+", completion))) for completion in completions]
    return [float(total == int(wanted.strip("$"))) for total, wanted in zip(sums, solution, strict=True)]


@pytest.mark.parametrize("level", few(["full", "basic"]))
def test_predicted_change_has_the_sign_of_the_observed_one(tmp_path, level):
    # the embedded policy, with two updates on every rollout: the second looks at the same tokens
    trainer = build_trainer(
        str(data.EMBEDDED_POLICY),
        data.train_problems(),
        tmp_path,
        reward_funcs=sum_is_right,
        entropy_measures=level,
        max_steps=24,
        per_device_train_batch_size=64,
        num_generations=8,
        max_completion_length=12,
        learning_rate=2e-4,
        num_iterations=2,
    )
    trainer.train()
    rows = [entry for entry in trainer.state.log_history if entry.get("staleness/updates") == 1]
    agree = [entry["entropy_change/predicted"] * entry["entropy_change/observed"] > 0 for entry in rows]
    assert len(rows) == 12
    assert sum(agree) >= 9


def test_unknown_level_is_refused(build):
    with pytest.raises(ValueError, match="unknown entropy_measures 'ful'. Did you mean 'full'?"):
        build(entropy_measures="ful")


def test_model_that_changes_its_logits_after_the_head_is_refused_by_full(build):
    for level in ("basic", "full"):
        trainer = build(entropy_measures=level)
        trainer.model.config.final_logit_softcapping = 30.0
        if level == "basic":
            trainer._compute_loss(trainer.model, given_batch())
            continue
        with pytest.raises(ValueError, match="entropy_measures='full' does not work with .* final_logit_softcapping"):
            trainer._compute_loss(trainer.model, given_batch())
