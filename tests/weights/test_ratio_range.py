import math

import pytest
import torch
from toy import distance, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.weights import RatioRange


def tokens(ratios: list[float], entropies: list[float], advantages: list[float], mask=None) -> Tokens:
    logps = torch.full((1, len(ratios)), -3.0)
    old_logps = logps - torch.tensor([ratios]).log()
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
    return Tokens(logps, old_logps, torch.tensor([entropies]), torch.tensor([advantages]), mask)


def test_weights_by_hand():
    # without tokens of high entropy: [0.8, 1.2], against the sign of the advantage
    given = tokens([1.3, 1.3, 0.7, 0.7, 1.1, 0.9, 1.3], [0.0] * 7, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0])
    assert RatioRange(share=0.0)(given).tolist() == [[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]]
    assert RatioRange(share=0.0, outside=0.5)(given).tolist() == [[0.5, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]]


def test_tokens_of_high_entropy_have_their_own_range():
    # ceil(0.4 * 4) of five are two: those of entropy 3 and 2, with [0.4, 1.6] instead of [0.9, 1.2]
    bounds = {"epsilon_low": 0.1, "epsilon_high": 0.2, "high_entropy_epsilon_low": 0.6, "share": 0.4}
    rule = RatioRange(**bounds, high_entropy_epsilon_high=0.6)
    entropies = [3.0, 2.0, 1.0, 0.0, 1.5]
    assert rule(tokens([1.5, 1.7, 1.5, 1.1, 1.7], entropies, [1.0] * 5)).tolist() == [[1.0, 0.0, 0.0, 1.0, 0.0]]
    assert rule(tokens([0.5, 0.3, 0.5, 0.95, 0.85], entropies, [-1.0] * 5)).tolist() == [[1.0, 0.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_tokens_of_high_entropy_are_those_above_the_quantile(share):
    for length in range(1, 62):
        entropies = torch.rand(length, generator=torch.Generator().manual_seed(length))
        high = (entropies.double() > entropies.double().quantile(1 - share)).tolist()
        weights = RatioRange(share=share)(tokens([1.4] * length, entropies.tolist(), [1.0] * length))
        assert weights[0].bool().tolist() == high


def test_share_is_of_each_completion():
    one = tokens([1.4], [0.5], [1.0])
    assert RatioRange()(one).tolist() == [[0.0]]
    masked = tokens([1.4, 1.4, 1.4], [0.5, 9.0, 0.4], [1.0] * 3, mask=[1, 0, 1])
    assert RatioRange()(masked)[masked.mask].tolist() == [1.0, 0.0]


def test_of_equal_entropies_the_first_are_high():
    assert RatioRange(share=0.5)(tokens([1.4] * 4, [1.0] * 4, [1.0] * 4)).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_strictly_on_policy_it_does_nothing():
    given = tokens([1.0, 1.0], [1.0, 2.0], [1.0, -1.0])
    assert RatioRange(epsilon_low=0.0, epsilon_high=0.0)(given).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("bounds", [(0.1, 0.1), (0.15, 0.3)])
def test_inside_of_a_wider_range_it_is_the_clip_of_trl(bounds):
    low, high = bounds
    given, logits = table_case()
    rule = {"epsilon_low": low, "epsilon_high": high, "share": 0.0}
    actual = table_gradient(table(logits, epsilon=0.5, token_weights={"ratio_range": rule}), given)
    expected = table_gradient(table(logits, plain=True, epsilon=low, epsilon_high=high), given)
    assert distance(actual, expected) < 1e-12
    assert distance(table_gradient(table(logits, plain=True, epsilon=0.5), given), expected) > 1e-2


def test_it_cannot_widen_the_range_of_trl():
    given, logits = table_case()
    rule = {"epsilon_low": 0.5, "epsilon_high": 0.5, "share": 0.0}
    actual = table_gradient(table(logits, epsilon=0.1, token_weights={"ratio_range": rule}), given)
    assert distance(actual, table_gradient(table(logits, plain=True, epsilon=0.1), given)) < 1e-12


def test_no_trained_token_is_no_error():
    assert RatioRange()(tokens([1.4], [1.0], [1.0], mask=[0])).isfinite().all()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["epsilon_low", "high_entropy_epsilon_low", "share", "outside"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
        RatioRange(**{name: value})


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["epsilon_high", "high_entropy_epsilon_high"])
def test_upper_bound_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        RatioRange(**{name: value})


def test_it_selects_tokens_and_needs_nothing_more():
    assert RatioRange.token_selective
    assert RatioRange.needs == set()
