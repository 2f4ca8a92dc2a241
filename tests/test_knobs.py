import math
import re
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from toy import LOSS_TYPES, batch, chosen_logps, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.control.knobs import TRAINER_KNOBS, TRL_KNOBS, Knob, Knobs, rule_knobs
from trl_entropy.families import FAMILIES, GRPO, UNCLIPPED
from trl_entropy.rules.rule import PlainFunction
from trl_entropy.rules.weights import ConfidentSign, HighEntropy, Sign


def store(**values) -> tuple[Knobs, dict]:
    """Knobs that read and write a plain dict."""
    knobs = Knobs()
    for name in values:
        knobs.add(
            Knob(name, low=0.0, high=2.0, raises_entropy=None, default=0.0),
            lambda name=name: values[name],
            lambda value, name=name: values.__setitem__(name, value),
        )
    return knobs, values


def test_a_knob_is_read_and_set_by_name():
    knobs, values = store(a=0.5, b=1.0)
    knobs["a"] = 1.5
    assert values == {"a": 1.5, "b": 1.0}
    values["b"] = 0.25  # what is in force is asked for, not remembered
    assert dict(knobs) == {"a": 1.5, "b": 0.25}
    assert len(knobs) == 2


@pytest.mark.parametrize("value", [-0.1, 2.1, math.nan, "1", True])
def test_value_out_of_range_is_refused_and_not_set(value):
    knobs, values = store(a=0.5)
    with pytest.raises(ValueError, match="a must be a number >= 0 and <= 2, got"):
        knobs["a"] = value
    assert values["a"] == 0.5


def test_unknown_knob_comes_with_the_nearest():
    knobs, _ = store(epsilon_low=0.2)
    message = "unknown knob 'epsilon_lo'. Did you mean 'epsilon_low'\\?"
    with pytest.raises(KeyError, match=message):
        knobs["epsilon_lo"]
    with pytest.raises(KeyError, match=message):
        knobs["epsilon_lo"] = 0.1


def test_knobs_of_rules_have_paths_and_those_with_a_flag_its_name():
    rules = {"confident_sign": ConfidentSign(alpha=-0.5), "sign": Sign()}
    table = rule_knobs({"token_weights": rules})
    assert set(table) == {
        "positive_advantage_coef",
        "negative_advantage_coef",
        "token_weights.confident_sign.alpha",
        "token_weights.confident_sign.threshold",
    }
    place = ("token_weights", "confident_sign", "alpha")
    assert table[".".join(place)] == Knob(".".join(place), -1.0, 1.0, False, 0.0, *place)
    place = ("token_weights", "sign", "negative_advantage_coef")
    assert table["negative_advantage_coef"] == Knob("negative_advantage_coef", 0.0, math.inf, True, 1.0, *place)


def test_turned_rule_replaces_the_old_one_and_leaves_the_rest():
    old = ConfidentSign(alpha=-0.5, threshold=0.9)
    rules = {"confident_sign": old, "high_entropy": HighEntropy(0.3)}
    knobs = Knobs()
    knobs.add_rules(rule_knobs({"token_weights": rules}).values(), {"token_weights": rules})
    knobs["token_weights.confident_sign.alpha"] = 0.25
    assert rules == {"confident_sign": ConfidentSign(alpha=0.25, threshold=0.9), "high_entropy": HighEntropy(0.3)}
    assert old.alpha == -0.5
    assert dict(knobs) == {
        "token_weights.confident_sign.alpha": 0.25,
        "token_weights.confident_sign.threshold": 0.9,
        "token_weights.high_entropy.fraction": 0.3,
    }


def test_rules_without_numbers_have_no_knobs():
    assert rule_knobs({"token_weights": {"mine": PlainFunction(lambda tokens: tokens.logps)}}) == {}


def entropy_after_a_step(advantage: float, ratio: float, **settings) -> float:
    """Entropy of a policy that is sure of one word, after a small step of TRL's loss on one sample of a rare word."""
    logits = torch.tensor([[[0.9, 0.07, 0.03]]], dtype=torch.float64).log()
    given = batch(rows=1, length=1) | {
        "completion_ids": torch.tensor([[1]]),
        "advantages": torch.tensor([advantage], dtype=torch.float64),
        "old_per_token_logps": logits[:, :, 1] - math.log(ratio),
    }
    logps = (logits + 1e-3 * table_gradient(table(logits, plain=True, **settings), given)).log_softmax(-1)
    return -(logps.exp() * logps).sum().item()


@pytest.mark.parametrize(
    ("name", "flag", "advantage", "ratio", "low", "high"),
    [
        ("epsilon_low", "epsilon", -1.0, 0.75, 0.2, 0.3),  # a wider clip lets a rare word be pushed further down
        ("epsilon_high", "epsilon_high", 1.0, 1.25, 0.2, 0.3),  # ... and further up
        ("entropy_coef", "entropy_coef", 0.0, 1.0, 0.0, 0.1),
    ],
)
def test_direction_of_a_knob_of_trl_is_that_of_one_exact_step(name, flag, advantage, ratio, low, high):
    after_low, after_high = (entropy_after_a_step(advantage, ratio, **{flag: value}) for value in (low, high))
    change = after_high - after_low
    (declared,) = (knob.raises_entropy for knob in TRL_KNOBS if knob.name == name)
    assert abs(change) > 1e-6  # rounding is 1e-15
    assert (change > 0) is declared


# Where the clip range acts


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_bounds_that_a_loss_does_not_clip_at_are_those_of_trl(loss_type):
    given, logits = table_case()

    def gradient(low: float, high: float) -> torch.Tensor:
        return table_gradient(table(logits, plain=True, loss_type=loss_type, epsilon=low, epsilon_high=high), given)

    reads_low = not torch.equal(gradient(0.05, 0.2), gradient(0.9, 0.2))
    reads_high = not torch.equal(gradient(0.2, 0.05), gradient(0.2, 9.0))
    assert reads_low is (loss_type not in UNCLIPPED)
    assert reads_high is (loss_type not in UNCLIPPED or loss_type == "cispo")
    # what `clipped` says: without these tokens the gradient is the same
    clip_range = GRPO.clip_range(0.1, 0.3, loss_type)
    mask = given["completion_mask"].bool()
    advantages = given["advantages"].unsqueeze(1).expand(mask.shape)
    logps = chosen_logps(logits, given["completion_ids"])
    tokens = Tokens(logps, given["old_per_token_logps"], logps, advantages, mask, clip_range=clip_range)
    assert tokens.clipped.any().item() is (loss_type not in UNCLIPPED)
    if loss_type != "vespo":  # whose ratios are those of whole completions
        pushed = gradient(0.1, 0.3).abs().sum(-1) > 0
        assert torch.equal(pushed, mask & ~tokens.clipped & (advantages != 0))


def run_of(accumulation: int, steps: int, iterations: int, loss_type: str = "dapo") -> SimpleNamespace:
    return SimpleNamespace(
        gradient_accumulation_steps=accumulation,
        steps_per_generation=steps,
        num_iterations=iterations,
        loss_type=loss_type,
    )


def test_ratios_leave_1_where_the_policy_moves_within_a_rollout():
    for accumulation, steps, iterations in product(range(1, 5), range(1, 7), range(1, 4)):
        size = steps * iterations  # of a rollout, in micro-batches; an optimizer step ends after every `accumulation`
        moved = any(at // accumulation > at // size * size // accumulation for at in range(4 * size * accumulation))
        why = GRPO.never_clips(run_of(accumulation, steps, iterations))
        assert (why is None) is moved
        if why is not None:  # what it says to set
            advice = re.search(r"num_iterations=(\d+) or steps_per_generation=(\d+)", why)
            assert GRPO.never_clips(run_of(accumulation, steps, int(advice[1]))) is None
            assert GRPO.never_clips(run_of(accumulation, int(advice[2]), iterations)) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_only_the_loss_that_loss_type_names_may_not_clip(family):
    why = family.never_clips(run_of(1, 1, 2, loss_type="sapo"))
    assert (why is not None) is (family is GRPO)


def test_directions_of_the_knobs_of_trl():
    assert {knob.name: knob.raises_entropy for knob in TRL_KNOBS} == {
        "epsilon_low": False,
        "epsilon_high": True,
        "entropy_coef": True,
    }


def test_directions_of_what_trl_fixes():
    effects = {knob.name: knob.raises_entropy for knob in TRAINER_KNOBS if knob not in TRL_KNOBS}
    assert effects == {"temperature": True, "learning_rate_scale": None}


def test_temperature_raises_the_entropy_at_that_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
    entropies = [torch.distributions.Categorical(logits=logits / t).entropy().item() for t in (0.5, 1.0, 2.0)]
    assert entropies == sorted(entropies)
