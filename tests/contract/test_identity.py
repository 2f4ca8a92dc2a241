"""With neutral settings the trainer is TRL's, bit for bit."""

import ast
import inspect
import textwrap

import pytest
import torch
from toy import LOSS_TYPES, batch, flat, fresh_logps, loss_and_gradients, moved, parameters, same
from trl import GRPOTrainer


# Neutral settings of the package: none, and every rule at the value that changes nothing
NEUTRAL = {
    "defaults": {},
    "neutral_rules": {
        "entropy_measures": "full",
        "positive_advantage_coef": 1.0,
        "token_weights": {"confident_sign": {"alpha": 0.0}, "high_entropy": {"fraction": 1.0}},
        "loss_terms": {"confident_surrogate": {"alpha": 0.0}},
    },
}
# What the package logs beside TRL's metrics
OWN = (
    "authority/",
    "covariance/",
    "entropy/",
    "entropy_change/",
    "gradient_mass/",
    "groups/",
    "knobs/",
    "share/",
    "staleness/",
)
# Settings of TRL under which the loss takes another path
VARIANTS = {
    "default": {},
    "num_iterations": {"num_iterations": 2},
    "top_entropy_quantile": {"top_entropy_quantile": 0.4},
    "beta": {"beta": 0.1},
    "entropy_coef": {"entropy_coef": 0.05},
    "adaptive_entropy": {"use_adaptive_entropy": True, "entropy_target": 2.0},
    "asymmetric_clip": {"epsilon": 0.1, "epsilon_high": 0.3, "delta": 1.5},
    "off_policy_mask": {"off_policy_mask_threshold": 0.1},
    "all": {"num_iterations": 2, "top_entropy_quantile": 0.4, "beta": 0.1, "entropy_coef": 0.05},
}
SEQUENCE = {"importance_sampling_level": "sequence"}


def named_loss_types(function) -> set[str]:
    """Every string that a function compares `self.loss_type` with."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    compared = [
        value
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "self.loss_type"
        for value in ast.walk(node.comparators[0])
    ]
    return {value.value for value in compared if isinstance(value, ast.Constant)}


def compare(build, variant: dict, *settings: dict, off_policy: bool, training: bool = True, **changes):
    trl = build(plain=True, **variant)
    inputs = batch() | changes
    logps = fresh_logps(trl, inputs)
    if off_policy:
        inputs["old_per_token_logps"] = moved(logps, by=0.4)
    if variant.get("beta"):
        inputs["ref_per_token_logps"] = moved(logps, by=0.2, seed=2)
    trl.model.train(training)
    expected = loss_and_gradients(trl, inputs)
    assert flat(expected[1]).norm() > 0
    for neutral in settings:
        ours = build(**variant, **neutral)
        ours.model.train(training)
        actual = loss_and_gradients(ours, inputs)
        assert torch.equal(actual[0], expected[0]), neutral
        assert same(actual[1], expected[1]), neutral
        assert ours.entropy_coef == trl.entropy_coef
    return trl


def test_trl_has_the_eight_loss_types_that_are_tested():
    assert named_loss_types(GRPOTrainer._compute_loss) == set(LOSS_TYPES)


def test_a_ninth_loss_type_would_be_seen():
    def compute_loss(self):
        if self.loss_type == "first":
            return 1
        if self.loss_type in ["second", "third"]:
            return 2
        return 3

    assert named_loss_types(compute_loss) == {"first", "second", "third"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradients_are_those_of_trl_off_policy(build, loss_type, variant):
    trl = compare(build, {"loss_type": loss_type, **VARIANTS[variant]}, *NEUTRAL.values(), off_policy=True)
    if loss_type in ("bnpo", "dapo", "dr_grpo", "grpo", "luspo"):  # the clip is at work
        assert trl._metrics["train"]["clip_ratio/region_mean"][-1] > 0


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradients_are_those_of_trl_on_policy(build, loss_type):
    compare(build, {"loss_type": loss_type}, NEUTRAL["defaults"], off_policy=False)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradients_are_those_of_trl_in_evaluation(build, loss_type):
    compare(build, {"loss_type": loss_type}, NEUTRAL["defaults"], off_policy=True, training=False)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradients_are_those_of_trl_with_sequence_level_ratios(build, loss_type):
    compare(build, {"loss_type": loss_type, **SEQUENCE}, NEUTRAL["defaults"], off_policy=True)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradients_are_those_of_trl_with_advantages_per_token(build, loss_type):
    variant, per_token = {"loss_type": loss_type}, torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    compare(build, variant, NEUTRAL["neutral_rules"], off_policy=True, advantages=per_token)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_comparison_fails_for_settings_that_are_not_neutral(build, loss_type):
    with pytest.raises(AssertionError):
        compare(build, {"loss_type": loss_type}, {"positive_advantage_coef": 0.999}, off_policy=True)


TRAJECTORIES = [
    ({}, "defaults"),
    ({"num_iterations": 2, "max_steps": 4, "loss_type": "grpo", "beta": 0.1, "entropy_coef": 0.05}, "neutral_rules"),
    ({"gradient_accumulation_steps": 2, "steps_per_generation": 4, "top_entropy_quantile": 0.4}, "neutral_rules"),
    ({"use_adaptive_entropy": True, "entropy_target": 2.0, "loss_type": "dr_grpo", "beta": 0.1}, "neutral_rules"),
    ({"loss_type": "luspo", **SEQUENCE}, "defaults"),
    ({"bf16": True, "mask_truncated_completions": True}, "neutral_rules"),
    # transformers has renamed a method that TRL calls
    pytest.param(
        {"gradient_checkpointing": True},
        "neutral_rules",
        marks=pytest.mark.filterwarnings(r"ignore:`gradient_checkpointing_\w+` is deprecated:FutureWarning"),
    ),
]


@pytest.mark.parametrize(("variant", "neutral"), TRAJECTORIES)
def test_training_is_that_of_trl(run, variant, neutral):
    trl, ours = run(plain=True, **variant), run(**variant, **NEUTRAL[neutral])
    assert same(parameters(ours), parameters(trl))
    times = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
    for expected, actual in zip(trl.state.log_history, ours.state.log_history, strict=True):
        own = {name for name in actual if name.startswith(OWN)}
        assert {name: value for name, value in actual.items() if name not in own | times} == {
            name: value for name, value in expected.items() if name not in times
        }
