"""Entropy control of TRL's asynchronous trainer on given completions; `asynchronous` says what is replaced of it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import async_run
import pytest
import torch
from asynchronous import HAS_ASYNC, Given, build_async, on_the_cpu
from processes import TESTS, run_script
from toy import distance, flat, logged, parameters, same, sums
from transformers import AutoModelForCausalLM, TrainerCallback

import trl_entropy
from trl_entropy import (
    EntropyCallback,
    EntropyWatchdog,
    PassAtKCallback,
    Rule,
    SeamError,
    families,
    with_entropy_control,
)
from trl_entropy._seam.packed import _completion
from trl_entropy.build import SECTIONS
from trl_entropy.families import ASYNC_GRPO, Family


pytestmark = pytest.mark.skipif(not HAS_ASYNC, reason="this TRL has no such trainer, or another batch")


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    on_the_cpu(monkeypatch)


@pytest.fixture
def build(model_dir, tmp_path):
    def make(output_dir=tmp_path, **arguments):
        return build_async(model_dir, output_dir, **arguments)

    return make


@pytest.fixture
def run(build):
    def train(resume=None, **arguments):
        trainer = build(**arguments)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


def batch_of(trainer) -> dict:
    """A micro-batch of TRL's own dataloader; as if it were the whole optimizer step."""
    inputs = next(iter(trainer.get_train_dataloader()))
    if hasattr(trainer, "seam"):
        trainer.seam.facts.batches = [inputs]
    return inputs


def loss_and_gradients(trainer, inputs: dict):
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}


def tokens_of(trainer, inputs: dict, needs=frozenset()):
    """The facts of a micro-batch, as the seam gives them to rules."""
    return trainer.seam.facts.look(trainer.model, inputs, set(needs))


def each_alone(model_dir: str, inputs: dict, samples: list, temperature: float = 1.0):
    """Of each completion its trained tokens' places and all log-probs `(n, V)`, from a forward pass of its own."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    for sample in samples:
        ids, mask = torch.as_tensor(sample.input_ids), torch.as_tensor(sample.completion_mask).bool()
        with torch.no_grad():
            logits = model(input_ids=ids.unsqueeze(0)).logits[0, :-1].double() / temperature
        places = mask[1:].nonzero().flatten()
        yield places - places[0], ids[1:][places], logits[places].log_softmax(-1)


# Which classes


def test_classes_have_names_in_the_package_and_are_made_once():
    trainer, config = ASYNC_GRPO.trainer_class(), ASYNC_GRPO.config_class()
    assert trl_entropy.EntropyAsyncGRPOTrainer is with_entropy_control(trainer)
    assert trl_entropy.EntropyAsyncGRPOConfig is with_entropy_control(config)
    assert trl_entropy.EntropyAsyncGRPOTrainer.__name__ == "EntropyAsyncGRPOTrainer"
    assert trl_entropy.EntropyAsyncGRPOTrainer.family is trl_entropy.EntropyAsyncGRPOConfig.family is ASYNC_GRPO


def test_trainer_is_found_wherever_trl_has_it():
    homes = ("trl.no_such_module", "trl", "trl.experimental.async_grpo", "trl.experimental.gmpo")
    assert Family("AsyncGRPOTrainer", "", homes=homes).trainer_class() is ASYNC_GRPO.trainer_class()
    assert Family("GMPOTrainer", "", homes=homes).trainer_class().__name__ == "GMPOTrainer"
    with pytest.raises(ImportError, match=r"^TRL \S+ has no NoTrainer: install trl>=9\.9$"):
        Family("NoTrainer", "", homes=homes, since="9.9").trainer_class()


def test_older_trl_is_refused_where_the_class_is_asked_for(monkeypatch):
    monkeypatch.setattr(families, "installed_trl", lambda: "1.14.2")
    with pytest.raises(TypeError, match=r"for AsyncGRPOTrainer of TRL 1\.14\.2: install trl>=1\.16\.0$"):
        _ = trl_entropy.EntropyAsyncGRPOTrainer
    assert "EntropyAsyncGRPOTrainer" in dir(trl_entropy)
    assert "EntropyAsyncGRPOTrainer" not in trl_entropy.__all__  # `import *` works with each TRL


# Neutral


NEUTRAL = [
    {},
    {"gradient_accumulation_steps": 2, "entropy_measures": "full", "epsilon_high": 0.3},
    {"token_budget": 60, "token_weights": {"perplexity": {"alpha": 0.0, "scope": "step"}}},
]


@pytest.mark.parametrize("settings", NEUTRAL)
def test_training_is_that_of_trl(run, settings):
    ours = {"entropy_measures", "token_weights"}
    trl = run(plain=True, **{key: value for key, value in settings.items() if key not in ours})
    with_control = run(**settings)
    assert len(logged(trl, "loss")) == 3
    assert same(parameters(with_control), parameters(trl))
    for metric in ("loss", "entropy", "reward", "grad_norm", "clip_ratio/region_mean", "sample/staleness_mean"):
        assert logged(with_control, metric) == logged(trl, metric)


def test_comparison_fails_for_settings_that_are_not_neutral(run):
    assert not same(parameters(run(positive_advantage_coef=0.9)), parameters(run()))


# Facts


def test_facts_are_those_of_each_completion_alone(build, model_dir):
    trainer = build(temperature=0.7)
    inputs = batch_of(trainer)
    samples = [sample for sample, _ in trainer.rollout_worker.taken[:8]]
    tokens = tokens_of(trainer, inputs, {"completions", "expected_discriminator", "entropies_at_one"})
    # TRL packs groups by their cost, so a row is found by its completion
    rows = {completion: row for row, completion in enumerate(tokens.completions.tolist())}
    assert len(rows) == 8
    alone = zip(
        samples,
        each_alone(model_dir, inputs, samples, 0.7),
        each_alone(model_dir, inputs, samples),
        strict=True,
    )
    gaps = 0
    for sample, (places, ids, logps), (_, _, at_one) in alone:
        row = rows[_completion({"input_ids": sample.input_ids})]
        assert tokens.mask[row].nonzero().flatten().tolist() == places.tolist()
        gaps += int(places[-1]) + 1 > len(places)
        mine = tokens.mask[row]
        entropies = -(logps.exp() * logps).sum(-1)
        of_vocabulary = (logps.exp().square() * (entropies.unsqueeze(-1) + logps)).sum(-1)
        expected = {
            "logps": logps.gather(-1, ids.unsqueeze(-1)).squeeze(-1),
            "entropies": entropies,
            "expected_discriminator": of_vocabulary,
            "entropies_at_one": -(at_one.exp() * at_one).sum(-1),
            "old_logps": torch.as_tensor(sample.old_log_probs)[torch.as_tensor(sample.completion_mask).bool()],
            "advantages": torch.full((len(places),), sample.advantage),
        }
        for name, value in expected.items():
            torch.testing.assert_close(getattr(tokens, name)[row][mine], value.float(), rtol=1e-4, atol=1e-5)
        assert tokens.rewards[row] == sample.metrics["reward"]
    assert gaps == 2  # completions with a tool's answer in them


def test_staleness_is_that_of_trl_at_the_loss(run, tmp_path):
    """Version `k` is trained in step `k`; completion `i` is `i % 3` versions behind when it is taken."""

    class Kept(with_entropy_control(ASYNC_GRPO.trainer_class())):
        def observe(self, tokens, effective):
            super().observe(tokens, effective)
            self.__dict__.setdefault("seen", []).append((self.model_version, tokens))

    trainer = run(trainer_class=Kept, max_steps=4, max_staleness=9)
    taken, means = trainer.rollout_worker.taken, []
    for step, (version, tokens) in enumerate(trainer.seen):
        assert version == step + 1
        samples = [sample for sample, _ in taken[8 * step : 8 * step + 8]]
        assert sorted(tokens.staleness.amax(1).tolist()) == sorted(version - one.model_version for one in samples)
        counts = [(version - sample.model_version, int(sample.completion_mask.sum())) for sample in samples]
        means.append(sum(age * n for age, n in counts) / sum(n for _, n in counts))
    assert logged_all(trainer, "staleness/updates") == pytest.approx(means, rel=1e-6)
    assert len(set(means)) == 4


def logged_all(trainer, name: str) -> list[float]:
    """A metric that stands in `metrics.jsonl` alone."""
    lines = Path(trainer.args.output_dir, "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]


# Weights, bonuses and terms


def test_weights_by_sign_split_the_loss(build):
    trl, ours = build(plain=True), build(positive_advantage_coef=0.2, negative_advantage_coef=3.0)
    given = batch_of(ours)
    parts = []
    for keep in (given["advantages"] > 0, given["advantages"] < 0):
        parts.append(loss_and_gradients(trl, given | {"advantages": torch.where(keep, given["advantages"], 0.0)}))
    loss, gradients = loss_and_gradients(ours, given)
    # float32
    torch.testing.assert_close(loss, 0.2 * parts[0][0] + 3.0 * parts[1][0], rtol=1e-5, atol=1e-6)
    assert distance(flat(gradients), 0.2 * flat(parts[0][1]) + 3.0 * flat(parts[1][1])) < 1e-5


@dataclass(frozen=True)
class Selecting(Rule):
    """The entropy of a token, at every second place of its completion."""

    def __call__(self, tokens):
        return tokens.entropies * (torch.arange(tokens.mask.shape[1]) % 2 == 0)


@dataclass(frozen=True)
class Places(Rule):
    """0, 1, 2, ... along the completion."""

    def __call__(self, tokens):
        return torch.arange(tokens.mask.shape[1]).expand_as(tokens.logps).float()


def test_loss_is_that_of_trl_on_the_effective_advantages(build, model_dir):
    rules = {"token_weights": {f"{__name__}.Selecting": {}}, "advantage_bonuses": {f"{__name__}.Places": {}}}
    trl, ours = build(plain=True), build(**rules, per_device_train_batch_size=4)
    given = batch_of(ours)  # one group, so that TRL keeps its order
    samples = [sample for sample, _ in ours.rollout_worker.taken[:4]]
    effective = []
    for sample, (places, _, logps) in zip(samples, each_alone(model_dir, given, samples), strict=True):
        entropies = -(logps.exp() * logps).sum(-1)
        effective.append(torch.where(places % 2 == 0, entropies, 0) * sample.advantage + places)
    effective = torch.cat(effective).float().unsqueeze(0)
    assert effective.shape == given["advantages"].shape
    expected = loss_and_gradients(trl, given | {"advantages": effective})
    loss, gradients = loss_and_gradients(ours, given)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-6)
    assert distance(flat(gradients), flat(expected[1])) < 1e-5
    assert distance(flat(gradients), flat(loss_and_gradients(trl, given)[1])) > 0.1


@dataclass(frozen=True)
class Surrogate(Rule):
    """What TRL's loss takes the mean of, where nothing is clipped."""

    follows_loss_type = True

    def __call__(self, tokens):
        return -tokens.ratios * tokens.advantages


def test_term_that_follows_the_loss_has_its_mean(run):
    of_term = {"loss_terms": {f"{__name__}.Surrogate": {}}, "token_weights": {f"{__name__}.nothing": {}}}
    wide = {"epsilon": 1.0, "epsilon_high": 1e6, "gradient_accumulation_steps": 2, "max_steps": 1, "optim": "sgd"}
    trl, ours = run(plain=True, **wide), run(**wide, **of_term)
    assert logged(ours, "loss") == pytest.approx(logged(trl, "loss"), rel=1e-5)
    assert logged(ours, "grad_norm") == pytest.approx(logged(trl, "grad_norm"), rel=1e-5)


def nothing(tokens):
    return torch.zeros_like(tokens.logps)


@dataclass(frozen=True)
class Likelihood(Rule):
    """A term whose mean is over the optimizer step."""

    def __call__(self, tokens):
        return tokens.logps


class Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()]))


def test_other_term_has_the_mean_over_the_optimizer_step(run):
    found = []
    for size, steps in ((16, 1), (8, 2), (4, 4)):
        kept = Gradients()
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        settings |= {"worker": Given(rewards=lambda group, member: 1.0), "callbacks": [kept], "max_grad_norm": 0.0}
        run(**settings, loss_terms={f"{__name__}.Likelihood": {}})
        found.append(kept.steps[0])
    assert found[0].norm() > 0.1
    assert distance(found[1], found[0]) < 1e-5
    assert distance(found[2], found[0]) < 1e-5


@pytest.mark.parametrize("pooling", ["exact", "lagged"])
def test_pool_is_the_optimizer_step_or_the_one_before(run, pooling):
    class Kept(with_entropy_control(ASYNC_GRPO.trainer_class())):
        def effective_advantages(self, raw, tokens):
            self.__dict__.setdefault("seen", []).append(tokens)
            return super().effective_advantages(raw, tokens)

    settings = {"gradient_accumulation_steps": 2, "token_weights": {"high_entropy": {"fraction": 0.3}}}
    trainer = run(trainer_class=Kept, pooling=pooling, max_steps=2, **settings)
    (first, second, third, fourth) = (tokens.entropies[tokens.mask] for tokens in trainer.seen)
    pools = [sorted(torch.cat([b.entropies[b.mask] for b in tokens.pool.batches]).tolist()) for tokens in trainer.seen]
    steps = [sorted(torch.cat(pair).tolist()) for pair in ((first, second), (third, fourth))]
    if pooling == "exact":
        expected = [steps[0], steps[0], steps[1], steps[1]]
    else:  # in the first step there is none before
        expected = [sorted(first.tolist()), sorted(second.tolist()), steps[0], steps[0]]
    assert [len(pool) for pool in pools] == [len(pool) for pool in expected]
    for pool, right in zip(pools, expected, strict=True):
        assert pool == pytest.approx(right, abs=1e-6)


def test_two_ranks_train_what_one_process_does(model_dir, tmp_path):
    done = run_script(TESTS / "async_run.py", model_dir, tmp_path, ranks=2, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2))
    assert first == second
    one = async_run.train(model_dir, tmp_path / "one", rows=8)
    weights = [torch.tensor(results.pop("weights"), dtype=torch.float64) for results in (first, one)]
    assert distance(*weights) < 1e-6  # float32 sums of another order
    assert len(one) == 5
    for name, values in one.items():
        assert first[name] == pytest.approx(values, abs=1e-5)
        assert len(set(values)) > 1


def test_backward_pass_of_the_head_may_leave_out_tokens(run):
    steps = []
    for skip in (False, True):
        kept = Gradients()
        weights = {"token_weights": {"high_entropy": {"fraction": 0.2}}, "max_grad_norm": 0.0}
        run(**weights, max_steps=1, skip_lm_head_tokens=skip, callbacks=[kept])
        steps += kept.steps
    assert distance(*steps) < 1e-5  # float32 sums of another order


# Controllers


CONTROLLERS = {
    "high": {"law": "pi", "knob": "epsilon_high", "target_ratio": 1.2, "start_steps": 1, "high": 9.0},
    "low": {
        **{"law": "bang_bang", "knob": "epsilon_low", "target": 0.1, "step": 0.01},
        **{"signal": "clip_ratio/low_mean", "raises_signal": False},
    },
    "plus": {"law": "pi", "knob": "positive_advantage_coef", "target": 2.0, "cadence": "rollout"},
}
RESUMED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


def test_resumed_run_is_the_whole_one(run, tmp_path):
    settings = {**RESUMED, "controllers": CONTROLLERS, "token_weights": {"high_entropy": {"fraction": 0.5}}}
    whole = run(output_dir=tmp_path / "whole", **settings)
    run(output_dir=tmp_path / "half", **{**settings, "max_steps": 2})
    checkpoint = str(tmp_path / "half" / "checkpoint-2")
    # Two steps are trained. What was taken ahead of them is gone: TRL samples it anew
    resumed = run(output_dir=tmp_path / "half", resume=checkpoint, worker=Given(first=16), **settings)
    assert same(parameters(resumed), parameters(whole))
    for knob in ("epsilon_high", "epsilon_low", "positive_advantage_coef"):
        values = logged(whole, f"knobs/{knob}")
        assert len(set(values)) == 4
        assert logged(resumed, f"knobs/{knob}") == values
    settings["controllers"] = {}
    uncontrolled = run(output_dir=tmp_path / "half", resume=checkpoint, worker=Given(first=16), **settings)
    assert not same(parameters(uncontrolled), parameters(whole))


def test_callback_of_a_plain_trainer_turns_a_knob_and_watchdog_sees_entropy(build, caplog):
    trainer = build(plain=True)
    EntropyCallback(law="pi", knob="epsilon_high", target=3.0).attach(trainer)
    EntropyWatchdog(floor=20.0).attach(trainer)
    trainer.train()
    assert len(set(logged(trainer, "knobs/epsilon_high"))) == 3
    assert trainer.epsilon_high != 0.2
    assert "below floor=20" in caplog.text
    law = {"law": "pi", "knob": "epsilon_high", "target": 1.0, "signal": "reward", "raises_signal": True}
    with pytest.raises(ValueError, match="cannot read reward in AsyncGRPOTrainer: TRL logs it on the main process"):
        EntropyCallback(**law).attach(build(plain=True))
    with pytest.raises(ValueError, match="cannot turn entropy_coef in AsyncGRPOTrainer: its loss has no entropy"):
        EntropyCallback(law="pi", knob="entropy_coef", target=1.0).attach(build(plain=True))


# What is refused


REFUSED = [
    ({"token_weights": {"steer": {}}}, "token_weights.steer does not work with AsyncGRPOTrainer: vLLM"),
    ({"token_weights": {"asym_grpo": {}}}, "asym_grpo does not work with AsyncGRPOTrainer: completions arrive"),
    ({"loss_terms": {"sent": {}}}, "sent does not work with AsyncGRPOTrainer: it has no reference policy"),
    (
        {"rollout_rules": {"dynamic_sampling": {}}},
        "dynamic_sampling does not work with AsyncGRPOTrainer: a separate process",
    ),
    ({"off_policy_updates": 2}, "off_policy_updates would do nothing in AsyncGRPOTrainer: it trains once on each"),
    ({"fast_step": True}, "fast_step would do nothing in AsyncGRPOTrainer: TRL packs its batch without padding"),
    ({"entropy_control": "hold", "entropy_target": 1.0}, "hold cannot turn entropy_coef in AsyncGRPOTrainer: its"),
    (
        {"controllers": {"t": {"law": "pi", "knob": "temperature", "target": 1.0}}},
        "t cannot turn temperature in AsyncGRPOTrainer: a",
    ),
    (
        {"controllers": {"t": {**CONTROLLERS["low"], "signal": "reward"}}},
        "t cannot read reward in AsyncGRPOTrainer: TRL",
    ),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_has_no_place_is_refused_before_a_model_loads(settings, message):
    with pytest.raises(ValueError, match=message):
        trl_entropy.EntropyAsyncGRPOConfig(output_dir="unused", use_cpu=True, bf16=False, **settings)


def test_what_needs_a_policy_that_generates_is_refused(build):
    with pytest.raises(
        ValueError, match="PassAtKCallback generates with the policy, which AsyncGRPOTrainer only loads for"
    ):
        build(callbacks=[PassAtKCallback(sums(), every=1)])


def test_trainer_of_trl_refuses_flags_that_it_does_not_read(build):
    config = with_entropy_control(ASYNC_GRPO.config_class())
    with pytest.raises(TypeError, match="^positive_advantage_coef would do nothing in a AsyncGRPOTrainer: use with_"):
        build(plain=True, config_class=config, positive_advantage_coef=0.5)


def test_rules_that_are_refused_are_those_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "trainers.md").read_text()
    (table,) = re.findall(r"^\| refused \| why \|\n(.*?)\n\n", page, re.M | re.S)
    refused = set()
    for section, rules in SECTIONS.items():
        for name in rules.keys() - {"sign"}:  # two flags
            settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, section: {name: {}}}
            try:
                trl_entropy.EntropyAsyncGRPOConfig(**settings)
            except ValueError as error:
                refused |= set(re.findall(rf"^{section}.(\w+) does not work with AsyncGRPOTrainer: ", str(error)))
    assert refused == set(re.findall(r"\]\(methods/(\w+)\.md\)", table))


# A TRL that has changed


def test_copy_of_advantages_is_noticed(build):
    class Copying(ASYNC_GRPO.trainer_class()):
        def compute_loss(self, model, inputs, **kwargs):
            held = {**inputs, "advantages": inputs["advantages"][inputs["token_index"] >= 0].clone()}
            return super().compute_loss(model, {**held, "advantages": held["advantages"].unsqueeze(0)}, **kwargs)

    trainer = build(trainer_class=Copying, per_device_train_batch_size=4)
    with pytest.raises(SeamError, match="from a copy of `advantages`"):
        loss_and_gradients(trainer, batch_of(trainer))


def test_loss_without_advantages_is_noticed(build):
    class Without(ASYNC_GRPO.trainer_class()):
        def compute_loss(self, model, inputs, **kwargs):
            advantages = torch.zeros_like(inputs["old_log_probs"])
            return super().compute_loss(model, {**inputs, "advantages": advantages}, **kwargs)

    trainer = build(trainer_class=Without)
    with pytest.raises(SeamError, match="without reading `advantages`"):
        loss_and_gradients(trainer, batch_of(trainer))


def test_completion_without_a_version_is_noticed(build):
    trainer = build()
    loader = trainer.get_train_dataloader()
    trainer._rollout_dataset.queue = trainer.rollout_queue
    with pytest.raises(SeamError, match="which version of the policy sampled it"):
        next(iter(loader))
