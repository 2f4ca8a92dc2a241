"""Entropy control before the other trainers of TRL: what their loss has a place for acts, the rest is refused."""

import copy
import importlib.util
import json
import pickle
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trainers_run
import trl
from packaging.requirements import Requirement
from packaging.version import Version
from processes import TESTS, run_script
from toy import (
    batch,
    distance,
    even_length,
    flat,
    logged,
    loss_and_gradients,
    moved,
    parameters,
    same,
)
from transformers import TrainerCallback
from trl import DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer
from trl.trainer import rloo_trainer

from trl_entropy import (
    EntropyCallback,
    EntropyGRPOConfig,
    EntropyGRPOTrainer,
    EntropyWatchdog,
    Rule,
    SeamError,
    with_entropy_control,
    wrap,
)
from trl_entropy import families as supported
from trl_entropy.config import EntropyFlags, with_flags
from trl_entropy.trainer import EntropyControl


class Scaled(GRPOTrainer):
    """A user's subclass: it takes one argument more, and halves the rewards."""

    def __init__(self, *args, scale: float = 0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def _calculate_rewards(self, *args, **kwargs):
        return self.scale * super()._calculate_rewards(*args, **kwargs)


@dataclass
class ScaledConfig(GRPOConfig):
    num_iterations: int = 2


TRAINERS = {**trainers_run.OF_SEQUENCES, "own": (Scaled, ScaledConfig)}
OF_SEQUENCES = list(trainers_run.OF_SEQUENCES)
# The gradient that TRL < 1.15 does not give to the entropies of RLOO
FUSED_HEAD = hasattr(rloo_trainer, "add_fused_lm_head")


def classes(name: str) -> dict[str, type]:
    """What `build` and `run` take for this trainer with entropy control."""
    trainer, config = TRAINERS[name]
    return {"trainer_class": with_entropy_control(trainer), "config_class": with_entropy_control(config)}


def plain(name: str) -> dict[str, type]:
    return dict(zip(("trainer_class", "config_class"), TRAINERS[name], strict=True))


def config(name: str, **settings):
    return with_entropy_control(TRAINERS[name][1])(output_dir="unused", use_cpu=True, bf16=False, **settings)


def given_batch(trainer, per_token: bool = True) -> dict:
    """A batch that every one of the trainers can take, whose old policy is not the current one."""
    given = batch()
    with torch.no_grad():
        logps = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([given["prompt_ids"], given["completion_ids"]], dim=1),
            torch.cat([given["prompt_mask"], given["completion_mask"]], dim=1),
            given["completion_ids"].size(1),
        )[0]
    old = moved(logps, by=0.1)
    return given | {"old_per_token_logps": old, "old_logps": (old * given["completion_mask"]).sum(1)}


# Which classes


def test_classes_are_made_once():
    for trainer, settings in TRAINERS.values():
        made, flags = with_entropy_control(trainer), with_entropy_control(settings)
        assert (made, flags) == (with_entropy_control(trainer), with_entropy_control(settings))
        assert issubclass(made, trainer)
        assert issubclass(flags, settings)
        assert with_entropy_control(made) is made
        assert with_entropy_control(flags) is flags
        assert made.family is flags.family
    assert with_entropy_control(GRPOTrainer) is EntropyGRPOTrainer
    assert with_entropy_control(GRPOConfig) is EntropyGRPOConfig


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (SFTTrainer, "no entropy control for SFTTrainer: SFTTrainer has no `_compute_loss`, which"),
        (DPOTrainer, "we do not know whether the loss of DPOTrainer reads advantages after the policy's log-probs"),
        (SFTConfig, "SFTConfig is the config of another trainer"),
        (int, "not a trainer or config of TRL. It is for GRPOTrainer, RLOOTrainer, GMPOTrainer and Async"),
        ("grpo", "with_entropy_control takes a class, got 'grpo'"),
    ],
)
def test_other_classes_are_refused(cls, message):
    with pytest.raises(TypeError, match=message):
        with_entropy_control(cls)


def test_mixing_in_by_hand_is_checked_too():
    with pytest.raises(TypeError, match="no entropy control for Wrong: SFTTrainer has no"):

        class Wrong(EntropyControl, SFTTrainer):
            pass


def test_trainer_that_a_library_put_in_the_place_of_trl_is_refused_when_it_is_used(monkeypatch):
    class Rewritten(GRPOTrainer.__mro__[1]):  # as Unsloth does: a copy of TRL's source, changed
        def __init__(self, model, reward_funcs, args=None, train_dataset=None):
            raise AssertionError("this is too late")

    Rewritten.__module__ = "fast.cache"
    monkeypatch.setattr(trl, "GRPOTrainer", Rewritten)
    spec = importlib.util.spec_from_file_location("trl_entropy.again", wrap.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    why = "fast has replaced TRL's GRPOTrainer by its own Rewritten, .*: train in a process"
    for use in (
        lambda: again.EntropyGRPOTrainer("model", even_length, args=EntropyGRPOConfig(use_cpu=True, bf16=False)),
        lambda: again.with_entropy_control(Rewritten),
        lambda: type("Mine", (again.EntropyGRPOTrainer,), {}),
    ):
        with pytest.raises(TypeError, match=why):
            use()


@pytest.mark.parametrize("args", [RLOOConfig, EntropyGRPOConfig])
def test_config_of_another_trainer_is_refused(build, args):
    with pytest.raises(TypeError, match=r"args must be an EntropyRLOOConfig, .*with_entropy_control\(RLOOConfig\) re"):
        build(trainer_class=with_entropy_control(RLOOTrainer), config_class=args)


def test_trainer_without_a_config_has_that_of_its_family(model_dir, dataset, tmp_path, monkeypatch):
    # its default is bf16 on a GPU
    on_cpu = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    monkeypatch.setattr("trl_entropy.trainer.with_flags", lambda cls: partial(with_flags(cls), **on_cpu))
    trainer = with_entropy_control(RLOOTrainer)(model=model_dir, reward_funcs=even_length, train_dataset=dataset)
    assert type(trainer.args) is with_entropy_control(RLOOConfig)


# A trainer of TRL that is given our config


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"entropy_control": "stage"}, "entropy_control, controllers"),
        ({"positive_advantage_coef": 0.0}, "positive_advantage_coef"),
        ({"token_weights": {"perplexity": {}}}, "token_weights"),
        ({"entropy_measures": "full", "live_view": True}, "entropy_measures, live_view"),
    ],
)
@pytest.mark.parametrize("name", TRAINERS)
def test_trainer_of_trl_refuses_flags_that_it_does_not_read(build, name, settings, named):
    trainer, config_class = TRAINERS[name][0], with_entropy_control(TRAINERS[name][1])
    ours = "EntropyGRPOTrainer" if trainer is GRPOTrainer else rf"with_entropy_control\({trainer.__name__}\)"
    with pytest.raises(TypeError, match=rf"^{named} would do nothing in a {trainer.__name__}: use {ours}$"):
        build(trainer_class=trainer, config_class=config_class, **settings)


@dataclass
class Stored(EntropyGRPOConfig):
    """A user's subclass with another default."""

    skip_zero_advantage: bool = True


def test_trainer_of_trl_refuses_a_subclass_of_the_config_and_its_copies(build):
    args = build(config_class=Stored).args  # one trainer of ours has it already
    for same_args in (args, copy.deepcopy(args), pickle.loads(pickle.dumps(args))):
        assert same_args.get_process_log_level() == args.get_process_log_level()
        with pytest.raises(TypeError, match="^skip_zero_advantage would do nothing in a GRPOTrainer"):
            build(plain=True, config_class=lambda made=same_args, **settings: made)


def test_neutral_flags_and_those_that_trl_reads_stand_in_a_trainer_of_trl(run):
    settings = {"off_policy_updates": 2, "token_weights": "{}", "use_adaptive_entropy": True, "entropy_target": 2.9}
    of_trl = {"steps_per_generation": 2, "use_adaptive_entropy": True, "entropy_target": 2.9}
    ours, trl = run(plain=True, config_class=EntropyGRPOConfig, **settings), run(plain=True, **of_trl)
    assert same(parameters(ours), parameters(trl))
    assert logged(trl, "entropy_coef")[-1] > 0


# Neutral


NEUTRAL = [
    {},
    {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "entropy_measures": "full"},
    {"num_iterations": 2, "beta": 0.1, "token_weights": {"perplexity": {"alpha": 0.0}}},
]


@pytest.mark.parametrize("settings", NEUTRAL)
@pytest.mark.parametrize("name", TRAINERS)
def test_training_is_that_of_trl(run, name, settings):
    ours = {"entropy_measures", "token_weights"}
    trl = run(**plain(name), **{key: value for key, value in settings.items() if key not in ours})
    with_control = run(**classes(name), **settings)
    assert len(logged(trl, "loss")) == 3
    assert same(parameters(with_control), parameters(trl))
    for metric in ("loss", "entropy", "reward", "grad_norm", "clip_ratio/region_mean"):
        assert logged(with_control, metric) == logged(trl, metric)


@pytest.mark.parametrize("name", TRAINERS)
def test_comparison_fails_for_settings_that_are_not_neutral(run, name):
    assert not same(parameters(run(**classes(name), positive_advantage_coef=0.9)), parameters(run(**classes(name))))


# Weights, bonuses and terms


@pytest.mark.parametrize("name", TRAINERS)
def test_weights_by_sign_split_the_loss(build, name):
    trl, ours = build(**plain(name)), build(**classes(name), positive_advantage_coef=0.2, negative_advantage_coef=3.0)
    given = given_batch(trl)
    parts = []
    for keep in (given["advantages"] > 0, given["advantages"] < 0):
        part = given | {"advantages": torch.where(keep, given["advantages"], 0.0)}
        parts.append(loss_and_gradients(trl, part))
    loss, gradients = loss_and_gradients(ours, given)
    # float32
    torch.testing.assert_close(loss, 0.2 * parts[0][0] + 3.0 * parts[1][0], rtol=1e-5, atol=1e-6)
    assert distance(flat(gradients), 0.2 * flat(parts[0][1]) + 3.0 * flat(parts[1][1])) < 1e-5


@dataclass(frozen=True)
class Places(Rule):
    """A bonus of 0, 1, 2, ... along the completion; said to be the same for all of its tokens."""

    token_selective = False

    def __call__(self, tokens):
        return torch.arange(tokens.mask.shape[1]).expand_as(tokens.logps).float()


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_completion_gets_the_mean_over_its_tokens(build, name):
    trl, ours = build(**plain(name)), build(**classes(name), advantage_bonuses={f"{__name__}.Places": {}})
    given = given_batch(trl)
    lengths = given["completion_mask"].sum(1)
    # of 0, 1, ..., L - 1 the mean is (L - 1) / 2
    expected = loss_and_gradients(trl, given | {"advantages": given["advantages"] + (lengths - 1) / 2})
    loss, gradients = loss_and_gradients(ours, given)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-6)
    assert distance(flat(gradients), flat(expected[1])) < 1e-5
    assert len(set(lengths.tolist())) > 2


def test_surrogate_of_rloo_by_its_formula(build):
    ours = build(**classes("rloo"), positive_advantage_coef=0.5, epsilon=0.1)
    given = given_batch(ours)
    loss = loss_and_gradients(ours, given)[0]
    mask, seen = given["completion_mask"], []
    ours.observe = lambda tokens, effective: seen.append(tokens)
    ours._compute_loss(ours.model, given)
    ratios = ((seen[0].logps - given["old_per_token_logps"]) * mask).sum(1).exp()
    advantages = torch.where(given["advantages"] > 0, 0.5, 1.0) * given["advantages"]
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(0.9, 1.1) * advantages)
    torch.testing.assert_close(loss, -surrogate.mean(), rtol=1e-5, atol=1e-6)
    assert ((ratios - 1).abs() > 0.1).any()


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_term_has_the_mean_of_the_loss(build, name):
    term = {"loss_terms": {"confident_surrogate": {"alpha": 0.5, "threshold": 0.0, "mean_over": "all"}}}
    trl, ours = build(**plain(name)), build(**classes(name), **term)
    given = given_batch(trl)
    seen = []
    ours.observe = lambda tokens, effective: seen.append(tokens)
    loss = ours._compute_loss(ours.model, given)
    tokens = seen[0]
    sums = torch.where(tokens.mask, -0.5 * tokens.ratios * tokens.advantages.abs(), 0.0).sum(1)
    # RLOO's ratio is that of a whole completion, GMPO's the geometric mean over its tokens
    term = (sums if name == "rloo" else sums / tokens.mask.sum(1)).mean()
    expected = trl._compute_loss(trl.model, given) + term
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert term.abs() > 1e-2


class Gradients(TrainerCallback):
    """Keeps the gradient that every optimizer step gets."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()]))


SPLIT = [
    {"loss_terms": {"confident_surrogate": {"alpha": -0.5, "threshold": 0.0}}},
    {
        "loss_terms": {"confident_surrogate": {"threshold": 0.0}},
        "controllers": {
            "mine": {
                "law": "pi",
                "knob": "loss_terms.confident_surrogate.alpha",
                "target_ratio": 0.9,
                "start_steps": 1,
            }
        },
    },
    {"token_weights": {"relative_entropy": {}}, "positive_advantage_coef": 0.5},
]


@pytest.mark.parametrize("settings", SPLIT)
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_split_into_micro_batches_does_not_matter(build, name, settings):
    runs = []
    for rows in (32, 16, 8):
        gradients = Gradients()
        trainer = build(
            trainer_class=trainers_run.given_completions(TRAINERS[name][0]),
            config_class=with_entropy_control(TRAINERS[name][1]),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=32 // rows,
            num_iterations=2,
            beta=0.0,
            max_grad_norm=0.0,
            optim="sgd",  # Adam divides by the gradient, which magnifies rounding where it is near zero
            callbacks=[gradients],
            **settings,
        )
        trainer.train()
        runs.append((trainer, gradients.steps))
    (whole, expected), *others = runs
    for trainer, steps in others:
        for step in range(3):  # float32 sums of another order
            assert distance(steps[step], expected[step]) < 1e-5
        for metric in (
            *(f"knobs/{knob}" for knob in whole.knobs),
            "staleness/log_ratio",
            "entropy/positive_advantage",
        ):
            assert logged(trainer, metric) == pytest.approx(logged(whole, metric), abs=1e-5)
    assert logged(whole, "staleness/log_ratio")[1] > 1e-3


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_terms_of_the_split_tests_are_at_work(build, name):
    steps = []
    for settings in ({}, SPLIT[0], SPLIT[2]):
        gradients = Gradients()
        made = {"trainer_class": trainers_run.given_completions(TRAINERS[name][0])}
        made["config_class"] = with_entropy_control(TRAINERS[name][1])
        build(**made, max_steps=1, max_grad_norm=0.0, callbacks=[gradients], **settings).train()
        steps.append(gradients.steps[0])
    assert distance(steps[1], steps[0]) > 1e-2
    assert distance(steps[2], steps[0]) > 1e-2


def test_old_log_probs_of_rloo_are_those_that_it_sums(run):
    class Compared(with_entropy_control(RLOOTrainer)):
        def _compute_loss(self, model, inputs):
            self.inputs = inputs
            return super()._compute_loss(model, inputs)

        def observe(self, tokens, effective):
            super().observe(tokens, effective)
            self.__dict__.setdefault("pairs", []).append((tokens.old_logps.sum(1), self.inputs["old_logps"]))

    trainer = run(trainer_class=Compared, config_class=with_entropy_control(RLOOConfig), num_iterations=3)
    assert len(trainer.pairs) == 3
    for ours, theirs in trainer.pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert logged(trainer, "staleness/log_ratio")[0] < 1e-6 < logged(trainer, "staleness/log_ratio")[2]


def test_clip_of_gmpo_is_that_of_logarithms(build):
    trainer = build(**classes("gmpo"), epsilon=0.4)
    given, seen = given_batch(trainer), []
    given["old_per_token_logps"] = moved(given["old_per_token_logps"], by=0.5, seed=4)
    trainer.observe = lambda tokens, effective: seen.append(tokens)
    trainer._compute_loss(trainer.model, given)
    tokens = seen[0]
    log_ratios = tokens.logps - tokens.old_logps
    over = (tokens.advantages > 0) & (log_ratios > 0.4) | (tokens.advantages < 0) & (log_ratios < -0.4)
    assert torch.equal(tokens.clipped, over & tokens.mask)
    assert over.any()


def test_entropy_bonus_as_a_term_of_rloo(run):
    settings = {**classes("rloo"), "loss_terms": {"aer_entropy": {"coef": 0.1, "threshold": 1.0}}}
    if not FUSED_HEAD:
        with pytest.raises(SeamError, match="needs the gradient of the entropies, but RLOOTrainer computes them"):
            run(**settings)
        return
    assert not same(parameters(run(**settings)), parameters(run(**classes("rloo"))))


def test_two_ranks_train_what_one_process_does(model_dir, tmp_path):
    done = run_script(TESTS / "trainers_run.py", model_dir, tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two.json").read_text())
    for name in OF_SEQUENCES:
        one = trainers_run.train(model_dir, tmp_path / "one", name, rows=16)
        weights = [torch.tensor(results["weights"], dtype=torch.float64) for results in (two[name], one)]
        assert distance(*weights) < 1e-6  # float32 sums of another order
        assert two[name]["alpha"] == pytest.approx(one["alpha"], abs=1e-5)
        assert len(set(one["alpha"])) > 1


# Knobs, controllers, callbacks


PI = {"law": "pi", "knob": "positive_advantage_coef", "target_ratio": 0.97, "start_steps": 1, "kp": 2.0, "ki": 0.5}


@pytest.mark.parametrize("name", TRAINERS)
def test_knobs_are_those_that_the_loss_reads(build, name):
    knobs = set(build(**classes(name)).knobs)
    of_all = {"epsilon_low", "epsilon_high", "temperature", "learning_rate_scale"}
    of_all |= {"positive_advantage_coef", "negative_advantage_coef"}
    assert knobs == of_all | ({"entropy_coef"} if name == "own" else set())


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("name", TRAINERS)
def test_controller_runs_and_resumes(run, tmp_path, name):
    settings = {**classes(name), "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "num_iterations": 1}
    settings["controllers"] = {"mine": {**PI, "low": 0.0, "high": 2.0}}
    whole = run(output_dir=tmp_path / "whole", **settings)
    run(output_dir=tmp_path / "parts", callbacks=[StopAt(3)], **settings)
    resumed = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-3"), **settings)
    for metric in ("knobs/positive_advantage_coef", "controllers/mine/error", "entropy/positive_advantage"):
        assert logged(resumed, metric) == logged(whole, metric)
    assert len(set(logged(whole, "knobs/positive_advantage_coef"))) > 2
    assert same(parameters(resumed), parameters(whole))


def test_turned_temperature_gives_the_run_of_that_temperature(run):
    given = run(**classes("rloo"), temperature=0.7)
    spec = {"law": "constant", "knob": "temperature", "value": 0.7}
    turned = run(**classes("rloo"), controllers={"mine": spec})
    assert same(parameters(turned), parameters(given))
    assert not same(parameters(given), parameters(run(**classes("rloo"))))


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_callbacks_on_the_plain_trainer(run, build, name):
    trainer = build(**plain(name), num_iterations=2)
    spec = {"target": 1.0, "step": 0.01, "low": 0.1, "high": 0.5}
    EntropyCallback("bang_bang", "epsilon_high", **spec).attach(trainer)
    watchdog = EntropyWatchdog(ceiling=0.1).attach(trainer)
    trainer.train()
    start = logged(trainer, "knobs/epsilon_high")[0]
    # entropy is above 1 nat in a random model, so the clip range is narrowed
    assert logged(trainer, "knobs/epsilon_high") == pytest.approx([start, start - 0.01, start - 0.02])
    assert watchdog.acted
    other = build(**plain(name))
    with pytest.raises(ValueError, match=r"entropy_coef cannot turn entropy_coef in \w+: it.* has no entropy bonus"):
        EntropyCallback("pi", "entropy_coef", target=1.0).attach(other)


# Rollouts


RULES = {
    "dynamic_sampling": {},
    "prompt_temperature": {},
    "perplexity_window": {},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_rollout_rules_decide_what_is_sampled(run, model_dir, name, rule):
    trainer = run(**classes(name), rollout_rules={rule: RULES[rule]}, num_iterations=2, max_steps=4)
    names = {"dynamic_sampling": "groups_sampled", "prompt_temperature": "temperature"}
    assert logged(trainer, f"rollout/{names.get(rule, 'perplexity')}")
    # sampled and scored at the same temperatures: in the first of two updates no ratio has moved
    assert [value < 1e-5 for value in logged(trainer, "staleness/log_ratio")] == [True, False, True, False]


# Refusals


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "rloo",
            {"token_weights": {"confident_sign": {"alpha": 0.1}}},
            "confident_sign select tokens, but with RLOOTrainer only the mean weight of a sequence acts: use GRPOTrai",
        ),
        ("gmpo", {"advantage_bonuses": {"repo_r": {}}}, "repo_r select tokens, but with GMPOTrainer only the mean"),
        ("rloo", {"entropy_control": "confident_sign", "entropy_target_ratio": 0.9}, "confident_sign select tokens"),
        (
            "rloo",
            {"advantage_bonuses": {"w_reinforce": {}}, "beta": 0.1},
            "w_reinforce replaces TRL's advantage, and with RLOOTrainer that includes the KL penalty: set beta=0",
        ),
        (
            "rloo",
            {"loss_terms": {"ce_gppo": {}}},
            r"loss_terms\.ce_gppo does not work with RLOOTrainer: it clips the ratios of",
        ),
        (
            "rloo",
            {"rollout_rules": {"offline_injection": {}}},
            r"rollout_rules\.offline_injection does not work with RLOOTrainer: it has no place where",
        ),
        (
            "rloo",
            {"entropy_control": "skywork"},
            "skywork cannot turn entropy_coef in RLOOTrainer: it has no entropy bonus. Set another",
        ),
        (
            "gmpo",
            {"entropy_control": "skywork"},
            "skywork cannot turn entropy_coef in GMPOTrainer: its loss has no entropy bonus",
        ),
        ("gmpo", {"entropy_coef": 0.1}, "entropy_coef would do nothing in GMPOTrainer: its loss has no entropy bonus"),
        ("gmpo", {"use_adaptive_entropy": True}, "use_adaptive_entropy would do nothing in GMPOTrainer"),
        (
            "rloo",
            {"entropy_control": "entropy_guided"},
            r"controllers\.entropy_guided has no target: set entropy_targ",
        ),
    ],
)
def test_what_the_loss_has_no_place_for_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        config(name, **settings)


def test_what_has_its_place_is_taken():
    for name in OF_SEQUENCES:
        config(name, entropy_control="entropy_guided", entropy_target_ratio=0.9)
        config(name, entropy_control="stage")
        config(name, loss_terms={"kl_cov": {}})
    config("gmpo", loss_terms={"ce_gppo": {}, "sent": {}}, beta=0.1)
    (adaptive, _) = config("rloo", entropy_control="mai_clip", num_iterations=2).control.fresh_controllers()
    assert adaptive.target.low == 0.3  # the preset's own, where RLOOConfig has no entropy_target
    assert not hasattr(RLOOConfig, "entropy_target")


# Configs


def test_flags_are_those_of_the_package_and_of_trl():
    made = config("rloo", normalize_advantages=True, off_policy_updates=2, gradient_accumulation_steps=2)
    assert (made.normalize_advantages, made.steps_per_generation, made.beta) == (True, 4, 0.05)
    assert isinstance(made, EntropyFlags)
    assert config("own").num_iterations == 2


@dataclass
class Importable(with_entropy_control(RLOOConfig)):
    """A subclass of a made class, which has a name of its own."""

    beta: float = 0.25


def test_samples_of_a_part_of_the_vocabulary_are_told_once(run, build, caplog):
    supported._warn_of_cuts.cache_clear()
    run(max_steps=1)
    assert "part of the vocabulary" not in caplog.text
    run(max_steps=1, top_p=0.9, generation_kwargs={"min_p": 0.1})
    EntropyWatchdog(floor=0.1).attach(build(plain=True, top_p=0.9, generation_kwargs={"min_p": 0.1}))
    assert caplog.text.count("top_p=0.9, min_p=0.1: completions are sampled from a part of the vocabulary, but") == 1
    EntropyCallback("constant", "entropy_coef").attach(build(plain=True, top_k=5))
    assert "top_k=5: completions are sampled from a part of the vocabulary" in caplog.text
    assert "vLLM" not in caplog.text
    supported.warn_of_cut_sampling(SimpleNamespace(top_k=5, use_vllm=True, generation_kwargs=None))
    assert "vLLM's log-probs, which TRL corrects with, cover only this part" in caplog.text


def test_config_survives_a_checkpoint():
    for made in (config("rloo", positive_advantage_coef=0.5), Importable("unused", use_cpu=True, bf16=False)):
        again = pickle.loads(pickle.dumps(made))
        assert type(again) is type(made)
        assert vars(again).keys() == vars(made).keys() - {"_control"}  # built anew
        assert str(again.control) == str(made.control)
        assert (again.positive_advantage_coef, again.beta) == (made.positive_advantage_coef, made.beta)


# Versions


@pytest.mark.parametrize("version", ["1.9.0", "1.16.1", "1.17.0.dev0", "2.0.0"])
def test_untested_trl_is_warned_about_once(build, monkeypatch, version):
    monkeypatch.setattr(supported.importlib.metadata, "version", lambda name: version)
    supported.warn_if_untested.cache_clear()
    oldest, newest = supported.TRL_VERSIONS[0], supported.TRL_VERSIONS[-1]
    with pytest.warns(UserWarning, match=f"TRL {version} is outside the tested range {oldest} to {newest}"):
        build(max_steps=1).train()
    build(max_steps=1).train()  # warnings are errors here


def test_other_processes_do_not_warn(build, monkeypatch):
    monkeypatch.setattr(supported.importlib.metadata, "version", lambda name: "0.1.0")
    supported.warn_if_untested.cache_clear()
    trainer = build(max_steps=1)
    monkeypatch.setattr(type(trainer.accelerator), "is_main_process", property(lambda self: False))
    trainer.train()


@pytest.mark.parametrize("version", [*supported.TRL_VERSIONS, "1.14.0", "1.15.0"])
def test_tested_trl_is_not_warned_about(version):
    supported.warn_if_untested.cache_clear()
    supported.warn_if_untested(version)


def test_versions_are_in_order_and_the_oldest_is_the_one_that_is_required():

    versions = [Version(version) for version in supported.TRL_VERSIONS]
    assert versions == sorted(versions)
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    (trl,) = (Requirement(one) for one in project["dependencies"] if Requirement(one).name == "trl")
    assert trl.specifier.contains(versions[0])
    assert not trl.specifier.contains("1.9.9")


def test_control_named_after_the_trainer_is_refused():
    with pytest.raises(TypeError, match=r"^Late would act as plain GRPOTrainer: put EntropyControl before it"):

        class Late(GRPOTrainer, EntropyControl):
            pass


def test_config_whose_subclass_asks_first_refuses_a_plain_trainer_too(build):
    @dataclass
    class Louder(EntropyGRPOConfig):
        def get_process_log_level(self):
            return super().get_process_log_level()

    with pytest.raises(TypeError, match="positive_advantage_coef would do nothing in a GRPOTrainer"):
        build(config_class=Louder, trainer_class=GRPOTrainer, positive_advantage_coef=0.5)
    build(config_class=Louder, trainer_class=EntropyGRPOTrainer, positive_advantage_coef=0.5)


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_clip_range_of_the_config_is_not_one_that_was_set(build, name):
    spec = {"law": "constant", "knob": "epsilon_low", "value": 0.3}
    trainer = build(**classes(name), num_iterations=2, controllers={"mine": spec})
    assert [controller.knob.name for controller in trainer.controllers] == ["epsilon_low"]


def test_term_is_not_corrected_for_the_sampler_where_the_loss_is_not(build):
    term = {"loss_terms": {"confident_surrogate": {"alpha": 0.5, "threshold": 0.0, "mean_over": "all"}}}
    trainer = build(**classes("gmpo"), **term)
    given = given_batch(trainer)
    ratio = torch.full(given["completion_ids"].shape, 0.5)
    losses = [
        trainer._compute_loss(trainer.model, batch) for batch in (given, given | {"importance_sampling_ratio": ratio})
    ]
    assert torch.equal(*losses)
