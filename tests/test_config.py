import json
import logging
import math
import pickle
from collections import Counter
from copy import copy, deepcopy
from dataclasses import fields, replace

import numpy as np
import pytest
import yaml
from trl import GRPOConfig, TrlParser

import trl_entropy.build
from trl_entropy import EntropyGRPOConfig
from trl_entropy.control.controller import Controller
from trl_entropy.control.laws import PI, BangBang, Epoch
from trl_entropy.control.laws.schedule import stage
from trl_entropy.control.presets import presets
from trl_entropy.control.targets import Target
from trl_entropy.rules.bonuses import RepoR
from trl_entropy.rules.terms import AerEntropy, ConfidentSurrogate
from trl_entropy.rules.weights import ConfidentSign, HighEntropy, Sign


def config(**arguments) -> EntropyGRPOConfig:
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
    return EntropyGRPOConfig(**settings, **arguments)


def parsed(*arguments: str) -> EntropyGRPOConfig:
    (made,) = TrlParser([EntropyGRPOConfig]).parse_args_and_config(
        ["--output_dir", "unused", "--use_cpu", "--bf16", "false", "--report_to", "none", *arguments]
    )
    return made


def test_defaults_are_those_of_trl():
    ours, trl = config(), GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    changed = {
        field.name
        for field in fields(GRPOConfig)
        if field.name != "logging_dir" and getattr(ours, field.name) != getattr(trl, field.name)
    }
    assert changed <= {"run_name", "entropy_target"}
    assert ours.entropy_target is None  # nothing reads it
    assert (*ours.control.sections.values(), ours.control.fresh_controllers()) == (
        {"sign": Sign()},
        {},
        {},
        [],
    )


def test_rules_are_built_from_mappings_and_flags():
    made = config(
        positive_advantage_coef=0.5,
        negative_advantage_coef=1.5,
        token_weights={"confident_sign": {"alpha": -0.5}, "high_entropy": None},
        loss_terms={"confident_surrogate": {"alpha": 0.25, "threshold": 0.5}},
    )
    assert made.control.sections["token_weights"] == {
        "confident_sign": ConfidentSign(alpha=-0.5),
        "high_entropy": HighEntropy(),
        "sign": Sign(positive_advantage_coef=0.5, negative_advantage_coef=1.5),
    }
    assert made.control.sections["loss_terms"] == {
        "confident_surrogate": ConfidentSurrogate(alpha=0.25, threshold=0.5)
    }


def test_json_is_read_where_a_mapping_is_asked_for():
    made = config(token_weights='{"confident_sign": {"alpha": -0.5}}', controllers="{}")
    assert made.control.sections["token_weights"]["confident_sign"] == ConfidentSign(alpha=-0.5)


def test_command_line_reads_flags_and_json():
    controllers = {"mine": {"law": "pi", "knob": "epsilon_high", "target": 0.3}}
    made = parsed(
        *("--positive_advantage_coef", "0.25", "--token_weights", '{"confident_sign": {"alpha": -0.5}}'),
        *("--controllers", json.dumps(controllers), "--off_policy_updates", "4"),
    )
    assert made.positive_advantage_coef == 0.25
    assert made.control.sections["token_weights"]["confident_sign"].alpha == -0.5
    assert made.control.fresh_controllers()[0].knob.name == "epsilon_high"
    assert made.steps_per_generation == 4


def test_yaml_reads_mappings(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "entropy_control": "entropic",
                "entropy_target": 0.4,
                "controllers": {"entropic": {"ki": 0.5}},
                "loss_terms": {"confident_surrogate": {"alpha": 0.25}},
            }
        )
    )
    made = parsed("--config", str(recipe))
    (controller,) = made.control.fresh_controllers()
    assert (controller.law, controller.target) == (PI(kp=1.0, ki=0.5), Target(0.4, 0.4))
    assert made.control.sections["loss_terms"] == {"confident_surrogate": ConfidentSurrogate(alpha=0.25)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"positive_advantage_coef": 0.5},
            "w_reinforce replaces TRL's advantage, which sign in token_weights would",
        ),
        ({"token_weights": {"clip_cov": {}, "steer": {}}}, "which clip_cov, steer in token_weights would multiply"),
        (
            {"entropy_control": "entropy_guided"},
            "which sign in token_weights would multiply: drop w_reinforce or",
        ),
        ({"advantage_bonuses": {"quantile_advantage": {}}}, "quantile_advantage and w_reinforce each replace TRL's"),
    ],
)
def test_bonus_that_replaces_the_advantage_bears_no_weight(settings, message):
    bonuses = {"w_reinforce": {}, **settings.pop("advantage_bonuses", {})}
    with pytest.raises(ValueError, match=message):
        config(**settings, advantage_bonuses=bonuses)
    # a rule that does nothing may stand there, and a weight where the advantage stays
    config(advantage_bonuses={"w_reinforce": {}, "repo": {}}, token_weights={"confident_sign": {"alpha": 0.0}})
    config(advantage_bonuses={"quantile_advantage": {"strength": 0.0}}, positive_advantage_coef=0.5)


# Built once


BUILDERS = {"build": 4, "rule_knobs": 1, "build_controllers": 1, "build_trimming": 1}  # three sections, and rollouts


def test_everything_is_built_once(build, monkeypatch):
    calls = Counter()

    def counted(name: str):
        function = getattr(trl_entropy.build, name)
        return lambda *args, **kwargs: (calls.update([name]), function(*args, **kwargs))[1]

    for name in BUILDERS:
        monkeypatch.setattr(trl_entropy.build, name, counted(name))
    trainer = build(entropy_control="hold", token_weights={"confident_sign": {"alpha": -0.5}})
    trainer.train()
    assert calls == BUILDERS
    assert trainer.args.control is trainer.args.control


def test_trainers_of_one_config_have_controllers_and_rules_of_their_own(build):
    first = build(controllers={"out": {"law": "bang_bang", "knob": "positive_advantage_coef", "target": 99.0}})
    first.knobs["positive_advantage_coef"] = 0.5
    first.controllers[0].update(1.0, 0.0, 0.0, 1)
    assert first.args.control.token_weights == {"sign": Sign()}
    (fresh,) = first.args.control.fresh_controllers()
    assert (fresh.value, first.controllers[0].value) == (1.0, 0.95)


def test_flag_that_is_set_later_acts():
    made = config()
    made.token_weights = {"confident_sign": {"alpha": -0.5}}
    assert made.control.token_weights == {"confident_sign": ConfidentSign(alpha=-0.5), "sign": Sign()}
    made.temperature, made.controllers = 0.5, {"hot": {"law": "pi", "knob": "temperature", "target": 0.3}}
    assert made.control.controllers[0].value == 0.5
    made.controllers = {"hot": {"law": "pie", "knob": "temperature"}}
    with pytest.raises(ValueError, match=r"unknown law in controllers\.hot 'pie'"):
        made.control  # noqa: B018


@pytest.mark.parametrize(("flag", "value"), [("entropy_control", "hold"), ("off_policy_updates", 4)])
def test_flag_that_sets_others_is_refused_later(flag, value):
    made = config()
    setattr(made, flag, value)
    with pytest.raises(ValueError, match=f"^{flag} sets other flags when the config is made: pass it to the config"):
        made.control  # noqa: B018


@pytest.mark.parametrize("copied", [copy, deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_config_is_copied_and_saved_by_its_flags(copied):
    made = config(entropy_control="entropic", token_weights={"test_config.unnamed": {}})
    other = copied(made)
    assert other == made
    assert other.to_dict() == made.to_dict()
    assert "control" not in {**made.to_dict(), **vars(other)}
    assert other.control.fresh_controllers() == made.control.fresh_controllers()
    assert json.loads(made.to_json_string())["token_weights"] == {"test_config.unnamed": {}}


unnamed = lambda tokens: tokens.logps  # noqa: E731 (it has no name that could be pickled)


# Presets


def test_bundled_presets():
    steering = ["aer", "balance", "confident_sign", "entropic", "entropy_guided", "epoch", "hold", "mai_clip"]
    steering += ["neg_to_pos", "paec", "repo_r", "siren", "skywork", "stage"]
    assert sorted(name for name, preset in presets().items() if "controllers" in preset) == steering
    rollouts = ["erpo", "offline_injection", "prepo"]
    assert sorted(name for name, preset in presets().items() if "rollout_rules" in preset) == rollouts
    assert len(presets()) == len(steering) + len(rollouts)


@pytest.mark.parametrize(
    ("name", "law", "knob", "low", "high", "value"),
    [
        ("entropy_guided", BangBang(0.05), "positive_advantage_coef", 0.0, 1.0, 0.0),
        ("entropic", PI(1.0, 0.01), "loss_terms.confident_surrogate.alpha", -1.0, 1.0, 0.0),
        ("confident_sign", PI(1.0, 0.01), "token_weights.confident_sign.alpha", -1.0, 1.0, 0.0),
    ],
)
def test_preset_that_steers_is_that_of_its_paper(name, law, knob, low, high, value):
    (controller,) = config(entropy_control=name).control.fresh_controllers()
    assert (controller.name, controller.law, controller.knob.name) == (name, law, knob)
    assert (controller.low, controller.high, controller.value) == (low, high, value)
    assert controller.raises_signal is False
    assert controller.target == Target(0.2, 0.2)  # TRL's default of entropy_target, in nats


def test_hold_turns_the_bonus_up_below_the_target():
    (controller,) = config(entropy_control="hold").control.fresh_controllers()
    assert (controller.law, controller.knob.name) == (PI(0.5, 0.02, anti_windup=True), "entropy_coef")
    assert (controller.low, controller.high, controller.value, controller.raises_signal) == (0.0, 0.5, 0.0, True)


@pytest.mark.parametrize(("name", "law"), [("stage", stage()), ("epoch", Epoch())])
def test_preset_that_is_a_schedule(name, law):
    (controller,) = config(entropy_control=name).control.fresh_controllers()
    assert (controller.law, controller.knob.name, controller.target) == (law, "positive_advantage_coef", None)


def test_preset_with_entries_put_over_it():
    made = config(
        entropy_control="entropic",
        entropy_target_ratio=0.5,
        token_weights={"high_entropy": {"fraction": 0.4}},
        loss_terms={"confident_surrogate": {"threshold": 0.8}},
        controllers={"entropic": {"kp": 0.5}, "second": {"law": "stage", "knob": "positive_advantage_coef"}},
    )
    rules = made.control.sections
    assert rules["loss_terms"] == {"confident_surrogate": ConfidentSurrogate(threshold=0.8, mean_over="confident")}
    assert rules["token_weights"]["high_entropy"] == HighEntropy(0.4)
    first, second = made.control.fresh_controllers()
    assert (first.law, first.target) == (PI(0.5, 0.01), Target(0.5, 0.5, is_ratio=True, start_steps=5))
    assert second.law == stage()


def test_entries_put_over_a_preset_do_not_change_it():
    before = presets()
    config(entropy_control="entropic", controllers={"entropic": {"kp": 0.5}})
    assert presets() == before


def follow(controllers: list[Controller], steps: list[float], per_rollout: int = 1) -> list[list[float]]:
    """The knobs after each optimizer step of these entropies, one list for each controller."""
    values = []
    for controller in controllers:
        controller.start(num_epochs=1)
        values.append([])
        for number, entropy in enumerate(steps, start=1):
            controller.update(entropy, 0.0, 0.0, 1, rollout_ends=number % per_rollout == 0)
            values[-1].append(controller.value)
    return values


def test_skywork_is_its_published_rule():
    # target 0.2, up by 1e-4 at or below it, down above it, in [0, 5e-3], 0 in force above it; once per rollout batch,
    # here of two steps: means 0.25, 0.1, 0.2, 0.3, 0.15
    controllers = config(entropy_control="skywork").control.fresh_controllers()
    (values,) = follow(controllers, [0.2, 0.3, 0.05, 0.15, 0.2, 0.2, 0.1, 0.5, 0.1, 0.2], per_rollout=2)
    assert values == pytest.approx([0.0, 0.0, 0.0, 1e-4, 1e-4, 2e-4, 2e-4, 0.0, 0.0, 2e-4], abs=1e-12)
    (values,) = follow(controllers, [0.1] * 51 + [0.3, 0.1])
    assert values[48:] == pytest.approx([4.9e-3, 5e-3, 5e-3, 0.0, 5e-3], abs=1e-12)


def test_mai_clip_is_its_published_rule():
    # the interval is [1 - 0.6, 1 / (1 - 0.6) + k], k <- clip(k + 0.25 sign(0.3 - H), 0, 2.5)
    entropies = [0.5, 0.1, 0.2, 0.4] + [0.1] * 12 + [0.4] * 2
    high, low = follow(config(entropy_control="mai_clip", num_iterations=2).control.fresh_controllers(), entropies)
    k, upper = 0.0, []
    for entropy in entropies:
        k = min(2.5, max(0.0, k + (0.25 if entropy < 0.3 else -0.25)))
        upper.append(1 / (1 - 0.6) + k)
    assert [1 + epsilon for epsilon in high] == pytest.approx(upper, abs=1e-12)
    assert max(upper) == pytest.approx(5.0)
    assert low == [0.6] * len(entropies)


def test_repo_r_is_its_published_rule():
    # after five steps the start is their mean, 1: doubled below it, halved above, and the sign changes at 1e-4
    made = config(entropy_control="repo_r")
    assert made.control.sections["advantage_bonuses"] == {"repo_r": RepoR(zeta=0.001)}
    (values,) = follow(
        made.control.fresh_controllers(), [0.8, 1.2, 1.0, 1.0, 1.0] + [0.9] * 7 + [1.1, 1.0] + [2.0] * 20
    )
    assert values[:5] == [0.001] * 5
    assert values[5:14] == pytest.approx([0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.025, 0.025], rel=1e-12)
    assert values[14:24] == pytest.approx([0.025 / 2**k for k in range(1, 8)] + [-1e-4, -2e-4, -4e-4], rel=1e-12)
    assert values[-1] == -0.05


def test_repo_r_decides_once_per_rollout():
    (controller,) = config(entropy_control="repo_r", entropy_target=0.5).control.fresh_controllers()
    for entropy, last, value in ((0.9, False, 1e-3), (0.2, True, 5e-4), (0.1, False, 5e-4), (0.2, True, 1e-3)):
        controller.update(entropy, 0.0, 0.0, 1, rollout_ends=last)
        assert controller.value == value


def test_aer_by_hand():
    # after five steps the target is 0.4 of their mean, 1; then 1e-3 times the error, in [0, 0.05]: no wind-up at 0
    made = config(entropy_control="aer")
    assert made.control.sections["loss_terms"] == {"aer_entropy": AerEntropy()}
    (values,) = follow(made.control.fresh_controllers(), [1.0] * 20 + [0.3, 0.2, 0.9, 0.3, 0.4])
    assert values == pytest.approx([0.0] * 20 + [1e-4, 3e-4, 0.0, 1e-4, 1e-4], abs=1e-12)
    (values,) = follow(config(entropy_control="aer").control.fresh_controllers(), [1.0] * 5 + [0.0] * 200)
    # 0.05 / (1e-3 * 0.4) = 125 steps
    assert values[5 + 123 : 5 + 126] == pytest.approx([0.0496, 0.05, 0.05], abs=1e-12)
    assert values[-1] == 0.05


@pytest.mark.parametrize(
    ("name", "flags", "target"),
    [
        ("mai_clip", {}, {"entropy_target": 0.3, "entropy_target_ratio": None}),
        ("mai_clip", {"entropy_target": 0.5}, {"entropy_target": 0.5, "entropy_target_ratio": None}),
        # TRL's default, but given
        ("mai_clip", {"entropy_target": 0.2}, {"entropy_target": 0.2, "entropy_target_ratio": None}),
        ("mai_clip", {"entropy_target_ratio": 0.5}, {"entropy_target": None, "entropy_target_ratio": 0.5}),
        ("aer", {}, {"entropy_target": None, "entropy_target_ratio": 0.4}),
        ("aer", {"entropy_target": 0.2}, {"entropy_target": 0.2, "entropy_target_ratio": None}),
        ("aer", {"entropy_target_ratio": 0.5}, {"entropy_target": None, "entropy_target_ratio": 0.5}),
        ("entropic", {}, {"entropy_target": 0.2, "entropy_target_ratio": None}),
        # a controller with a target of its own reads no flag
        (
            "mai_clip",
            {"controllers": {"mai_clip": {"target": 0.7}}},
            {"entropy_target": None, "entropy_target_ratio": None},
        ),
        ("none", {"use_adaptive_entropy": True}, {"entropy_target": 0.2, "entropy_target_ratio": None}),
        ("none", {"use_adaptive_entropy": True, "entropy_target": 0.6}, {"entropy_target": 0.6}),
    ],
)
def test_target_of_a_preset_is_taken_where_no_flag_sets_one(name, flags, target):
    flags = {**flags, "num_iterations": 2}  # with one update per rollout a clip range does nothing
    made = config(entropy_control=name, **flags)
    words = [f"--{flag}={json.dumps(value)}" for flag, value in flags.items()]
    copied = replace(made, generation_batch_size=None)  # TRL fills it in, and then refuses it
    for same in (made, copied, parsed("--entropy_control", name, *words)):
        assert {flag: getattr(same, flag) for flag in target} == target
    assert copied.control.fresh_controllers() == made.control.fresh_controllers()


def test_knobs_of_trl_start_at_its_flags():
    def start(knob: str, **arguments) -> float:
        spec = {"law": "pi", "knob": knob, "target": 0.3}
        return config(controllers={"mine": spec}, num_iterations=2, **arguments).control.fresh_controllers()[0].value

    assert start("epsilon_low", epsilon=0.1) == 0.1
    assert start("epsilon_high", epsilon=0.1) == 0.1
    assert start("epsilon_high", epsilon=0.1, epsilon_high=0.28) == 0.28
    assert start("entropy_coef", entropy_coef=0.01) == 0.01
    assert start("positive_advantage_coef", positive_advantage_coef=0.5) == 0.5


@pytest.mark.parametrize(
    ("knob", "flags"),
    [
        ("epsilon_high", {"epsilon_high": 0.2}),
        ("token_weights.confident_sign.alpha", {"token_weights": {"confident_sign": {"alpha": 0.0}}}),
    ],
)
def test_start_that_is_set_twice_is_refused_though_one_is_the_default(knob, flags):
    mine = {"mine": {"law": "pi", "knob": knob, "target": 0.3, "initial": 0.4}}
    with pytest.raises(
        ValueError, match=rf"{knob} is set to .*: leave {knob} unset and set controllers\.mine\.initial"
    ):
        config(controllers=mine, **flags)


def test_start_is_free_where_a_flag_only_follows_another():
    # TRL takes epsilon for an epsilon_high that is not set
    mine = {"mine": {"law": "pi", "knob": "epsilon_high", "target": 0.3, "initial": 0.4}}
    assert config(epsilon=0.1, num_iterations=2, controllers=mine).control.fresh_controllers()[0].value == 0.4


# Off-policy updates


@pytest.mark.parametrize(
    ("updates", "accumulation", "iterations", "steps"),
    # steps_per_generation = updates * accumulation / iterations
    [(1, 1, 1, 1), (4, 1, 1, 4), (4, 2, 1, 8), (4, 1, 2, 2), (4, 3, 4, 3), (2, 8, 2, 8)],
)
def test_off_policy_updates_set_the_size_of_the_rollout(updates, accumulation, iterations, steps):
    made = config(off_policy_updates=updates, gradient_accumulation_steps=accumulation, num_iterations=iterations)
    assert made.steps_per_generation == steps
    assert made.generation_batch_size == steps * made.per_device_train_batch_size
    # optimizer updates per rollout: TRL generates every steps_per_generation * num_iterations micro-batches
    assert made.steps_per_generation * made.num_iterations / made.gradient_accumulation_steps == updates


def test_off_policy_updates_may_repeat_steps_per_generation():
    assert config(off_policy_updates=4, steps_per_generation=4).steps_per_generation == 4


def test_off_policy_updates_say_what_they_set(caplog):
    with caplog.at_level(logging.INFO, logger="trl_entropy.config"):
        config(off_policy_updates=4, num_iterations=2)
    assert "off_policy_updates=4: steps_per_generation=2, so each rollout batch is split into 2" in caplog.text
    assert "num_iterations=2" in caplog.text


# Refusals


SELECTIVE = {"importance_sampling_level": "sequence"}
GUIDED = {"entropy_control": "entropy_guided"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"entropy_control": "entropyguided"},
            r"unknown entropy_control .*Did you mean 'entropy_guided'\? Available: a",
        ),
        ({"token_weights": "{"}, r"token_weights must be a YAML mapping or a JSON object, got '\{' \("),
        ({"token_weights": "[1]"}, r"token_weights must be a mapping, got \[1\]"),
        ({"loss_terms": 3}, r"loss_terms must be a mapping, got 3"),
        ({"controllers": "0.5"}, r"controllers must be a mapping, got 0\.5"),
        ({"controllers": {"mine": 3}}, r"controllers\.mine must be a mapping with law and knob, got 3"),
        ({"controllers": {"mine": "pi"}}, r"controllers\.mine must be a mapping with law and knob, got 'pi'"),
        ({"token_weights": {"confident_sgn": {}}}, r"unknown name in token_weights .*Did you mean 'confident_sign'\?"),
        ({"loss_terms": {"confident_sign": {}}}, r"unknown name in loss_terms .*Did you mean 'confident_surrogate'\?"),
        (
            {"token_weights": {"high_entropy": {"fraction": 2}}},
            r"fraction must be .* \(in token_weights\.high_entropy\)",
        ),
        ({"controllers": {"mine": {"law": "pi", "knob": "epsilon"}}}, r"unknown knob in controllers\.mine 'epsilon'"),
        (
            {"positive_advantage_coef": -1},
            r"positive_advantage_coef must be a number >= 0, got -1 \(in token_weights\.si",
        ),
        (
            {"token_weights": {"sign": {"positive_advantage_coef": 0.5}}},
            r"token_weights\.sign\.positive_advantage_coef is the flag positive_advantage_coef: set it there",
        ),
        ({"token_weights": {"sign": {"coef": 0.5}}}, r"unknown parameter of token_weights\.sign 'coef'"),
        ({"off_policy_updates": 0}, r"off_policy_updates must be a whole number >= 1, got 0"),
        ({"off_policy_updates": 2.0}, r"off_policy_updates must be a whole number >= 1, got 2\.0"),
        ({"off_policy_updates": True}, r"off_policy_updates must be a whole number >= 1, got True"),
        ({"off_policy_updates": 3, "num_iterations": 2}, r"off_policy_updates=3 does not fit num_iterations=2"),
        (
            {"off_policy_updates": 2, "generation_batch_size": 16},
            r"off_policy_updates=2 and generation_batch_size=16 both set the size of the rollout batch",
        ),
        (
            {"off_policy_updates": 2, "steps_per_generation": 4},
            r"off_policy_updates=2 needs steps_per_generation=2 .* but steps_per_generation=4 is set: drop one",
        ),
        (
            {"use_adaptive_entropy": True, **GUIDED},
            r"use_adaptive_entropy .* and controllers\.entropy_guided would both steer entropy: keep one of them",
        ),
        (
            {"entropy_target": 0.3, "entropy_target_ratio": 0.5, **GUIDED},
            r"entropy_target=0\.3 \(nats\) and entropy_target_ratio=0\.5 .* are both set: keep one of them",
        ),
        (
            {"entropy_target": 0.2, "entropy_target_ratio": 0.5, **GUIDED},
            r"entropy_target=0\.2 \(nats\) and entropy_target_ratio=0\.5 .* are both set: keep one of them",
        ),
        (
            {
                "entropy_target_ratio": 0.5,
                "controllers": {"mine": {"law": "pi", "knob": "entropy_coef", "target": 1.0}},
            },
            r"entropy_target_ratio=0\.5 has nothing to act on: .* controllers without their own target, or",
        ),
        (
            {"entropy_target_ratio": 0.5, "use_adaptive_entropy": True},
            r"entropy_target_ratio=0\.5 has nothing to act on",
        ),
        ({"entropy_target_ratio": 0.5}, r"entropy_target_ratio=0\.5 has nothing to act on: set entropy_control to"),
        (
            {"entropy_target_ratio": 0.5, "entropy_control": "stage"},
            r"entropy_target_ratio=0\.5 has nothing to act on",
        ),
        ({"entropy_target_ratio": 0.0, **GUIDED}, r"entropy_target_ratio must be > 0, got 0"),
        ({"entropy_target": -1.0, **GUIDED}, r"entropy_target must be > 0, got -1"),
        (
            {"positive_advantage_coef": 0.5, **GUIDED},
            r"positive_advantage_coef is set to 0\.5, but controllers\.entropy_guided decides its starting value",
        ),
        (
            {"positive_advantage_coef": 0.5, "entropy_control": "stage"},
            r"positive_advantage_coef is set to 0\.5, but controllers\.stage decides its starting value",
        ),
        (
            {"token_weights": {"confident_sign": {"alpha": 0.1}}, **SELECTIVE},
            r"confident_sign select tokens, but with importance_sampling_level='sequence' only the mean weight",
        ),
        (
            {"loss_terms": {"confident_surrogate": {}}, "token_weights": {"high_entropy": {}}, **SELECTIVE},
            r"high_entropy, confident_surrogate select tokens",
        ),
        ({"entropy_control": "entropic", **SELECTIVE}, r"confident_surrogate select tokens"),
        ({"entropy_control": "confident_sign", **SELECTIVE}, r"confident_sign select tokens"),
        (
            {"entropy_control": "entropic", "fast_step": True},
            r"skip_zero_advantage would change the run: loss_terms\.confident_surrogate also trains on completions "
            r"with advantage 0; set trim_padding and sort_by_length instead",
        ),
    ],
)
def test_settings_that_are_wrong_or_exclude_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        config(**arguments)


# Controllers that could do nothing


def turning(*knobs: str, **spec) -> dict:
    named = {f"c{place}": {"law": "constant", "knob": knob, **spec} for place, knob in enumerate(knobs)}
    return {"controllers": named}


ONE_UPDATE = (
    r"each rollout batch gets one optimizer update, so ratios stay 1: set num_iterations=2 or steps_per_generation=2"
)
OF_CLIP_RATIO = {"law": "pi", "signal": "clip_ratio/low_mean", "target": 0.1, "raises_signal": True}
TWICE = {"num_iterations": 2}
SIGN = "token_weights.confident_sign"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entropy_control": "mai_clip"}, rf"controllers\.mai_clip would do nothing with epsilon_high: {ONE_UPDATE}"),
        (turning("epsilon_low"), rf"controllers\.c0 would do nothing with epsilon_low: {ONE_UPDATE}"),
        (turning("entropy_coef", **OF_CLIP_RATIO), rf"nothing with clip_ratio/low_mean: {ONE_UPDATE}"),
        (
            {**turning("epsilon_high"), "gradient_accumulation_steps": 4, "steps_per_generation": 2},
            r"num_iterations=4 or steps_per_generation=8 \(as off_policy_updates=2 does\), or drop it",
        ),
        ({**turning("epsilon_high"), "loss_type": "cispo", **TWICE}, r"loss_type='cispo' caps ratios at epsilon_high"),
        (
            {**turning("epsilon_low"), "loss_type": "sapo", **TWICE},
            r"loss_type='sapo' reads neither bound: set anothe",
        ),
        ({"entropy_control": "mai_clip", "loss_type": "vespo", **TWICE}, r"loss_type='vespo' reads neither bound"),
        (
            {**turning("entropy_coef", **OF_CLIP_RATIO), "loss_type": "cispo", **TWICE},
            r"clip_ratio/low_mean: loss_type",
        ),
        ({**turning("learning_rate_scale"), "learning_rate": 0.0}, r"controllers\.c0 .* it scales learning_rate=0"),
        (
            {**turning(f"{SIGN}.threshold"), "token_weights": {"confident_sign": {}}},
            r"of token_weights\.confident_sign\.threshold would do nothing: ConfidentSign\(alpha=0.*of threshold",
        ),
    ],
)
def test_controllers_that_could_do_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        config(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"entropy_control": "mai_clip", "off_policy_updates": 2},
        {"entropy_control": "mai_clip", "num_iterations": 2},
        # the second rollout of an optimizer step is trained on in the next step, too
        {**turning("epsilon_high"), "gradient_accumulation_steps": 3, "steps_per_generation": 2},
        {**turning(f"{SIGN}.threshold"), "token_weights": {"confident_sign": {"alpha": -0.5}}},
        {**turning(f"{SIGN}.threshold", f"{SIGN}.alpha"), "token_weights": {"confident_sign": {}}},
        {**turning("loss_terms.aer_entropy.coef", law="pi", initial=0.0), "loss_terms": {"aer_entropy": {}}},
        turning("learning_rate_scale"),
    ],
)
def test_controllers_that_can_act_are_taken(arguments):
    config(**arguments)


def test_weights_by_sign_stand_with_sequence_level_ratios():
    made = config(positive_advantage_coef=0.5, **SELECTIVE)
    assert made.control.sections["token_weights"] == {"sign": Sign(positive_advantage_coef=0.5)}
    config(entropy_control="entropy_guided", **SELECTIVE)


def test_schedules_stand_with_the_adaptive_bonus_of_trl_off():
    config(entropy_control="stage", entropy_coef=0.01)


@pytest.mark.parametrize("flags", [{}, {"entropy_control": "stage"}])
def test_target_of_trl_that_nothing_reads_is_told(flags, caplog):
    # TRL accepts it too where use_adaptive_entropy is off
    assert config(entropy_target=0.2, **flags).entropy_target == 0.2
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("entropy_target=0.2 has nothing to act on: set entropy_control to hold")
    caplog.clear()
    config(entropy_target=0.2, use_adaptive_entropy=True)
    assert caplog.records == []


def test_control_that_is_turned_off_over_a_recipe_tells_of_its_target(caplog):
    assert config(entropy_control="none", entropy_target_ratio=0.5).controllers == {}
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("entropy_target_ratio=0.5 has nothing to act on")


def test_start_of_a_bundled_method_may_be_set():
    (made,) = config(entropy_control="repo_r", controllers={"repo_r": {"initial": 0.01}}).control.fresh_controllers()
    assert made.value == 0.01


def test_control_that_is_turned_off_drops_what_a_recipe_sets_of_it(caplog):
    off = config(entropy_control="none", controllers={"entropy_guided": {"step": 0.1}})
    assert off.controllers == {}
    assert "controllers.entropy_guided changes a bundled method, but entropy_control is none" in caplog.text
    adaptive = config(entropy_control="none", entropy_target_ratio=0.8, use_adaptive_entropy=True)
    assert adaptive.entropy_target == 0.2  # TRL's default


@pytest.mark.parametrize(
    "given",
    [
        {"epsilon_high": math.inf},
        {"learning_rate": "1e-5"},
        {"num_iterations": np.int64(2), "epsilon": np.float32(0.2)},
    ],
)
def test_numbers_of_trl_are_taken_as_trl_takes_them(given):
    config(**given)


@pytest.mark.parametrize("name", ["num_iterations", "gradient_accumulation_steps", "per_device_train_batch_size"])
def test_counts_are_whole_numbers(name):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number >= 1, got 2.0"):
        config(**{name: 2.0})


def test_two_configs_that_were_given_one_mapping_do_not_share_it():
    rules = {"clip_v": {"mu": 1.0}}
    first, second = config(token_weights=rules), config(token_weights=rules)
    first.token_weights["clip_v"]["mu"] = 2.0
    assert second.token_weights == rules == {"clip_v": {"mu": 1.0}}
