import math
from dataclasses import replace

import pytest
import torch
from toy import table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.scores import excess
from trl_entropy.rules.weights import ClipV


def tokens(excesses: list[float], advantages: list[float], mask=None) -> Tokens:
    """Tokens of probability 1 and entropy 1, so that S = 1 and D = 1 - E."""
    expected, advantages = 1 - torch.tensor([excesses]), torch.tensor([advantages])
    zeros = torch.zeros_like(expected)
    mask = torch.ones_like(zeros, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
    return Tokens(zeros, zeros, zeros + 1, advantages, mask, expected_discriminator=expected)


# Mean -1, deviations from it 1, 1, 1, 1, -4, standard deviation sqrt((4 + 16) / 5) = 2
LOW = [0.0, 0.0, 0.0, 0.0, -5.0]
ALL = [1.0, 1.0, 1.0, 1.0, 1.0]


def test_excess_by_hand():
    # 0.5 * (1 + log 0.5) - 0.1
    row = torch.tensor([[0.5]])
    given = Tokens(row.log(), row.log(), torch.ones(1, 1), row, row > 0, expected_discriminator=row / 5)
    assert excess(given).item() == pytest.approx(0.0534264, rel=1e-6)


@pytest.mark.parametrize(("mu", "last"), [(2.4, 0.0), (2.5, 1.0), (8.5, 1.0)])
def test_weights_by_hand_with_a_threshold_that_the_mean_does_not_move(mu, last):
    # -5 < -2.4 * 2, but not < -2.5 * 2; around the mean it would be -4 < -2 * 2
    assert ClipV(mu=mu)(tokens(LOW, [-1.0] * 5)).tolist() == [[1.0, 1.0, 1.0, 1.0, last]]


@pytest.mark.parametrize(("advantage", "last"), [(1.0, 1.0), (0.0, 1.0), (-0.1, 0.0)])
def test_released_form_drops_penalties_alone(advantage, last):
    assert ClipV(mu=1.0)(tokens(LOW, [-1.0] * 4 + [advantage]))[0, 4] == last


@pytest.mark.parametrize(("sides", "last"), [("negative_low", 1.0), ("both", 0.0)])
def test_upper_side_and_rewards_belong_to_the_general_form(sides, last):
    given = tokens([0.0, 0.0, 0.0, 0.0, 5.0], [1.0] * 5)
    assert ClipV(mu=2.4, sides=sides)(given).tolist() == [[1.0, 1.0, 1.0, 1.0, last]]


@pytest.mark.parametrize(("max_share", "dropped"), [(0.0, 0), (1e-4, 1), (0.35, 1), (0.4, 2), (1.0, 3)])
def test_limit_takes_the_farthest_first(max_share, dropped):
    weights = ClipV(mu=0.0, max_share=max_share)(tokens([-6.0, -3.0, -2.0, 4.0, 7.0], [-1.0] * 5))
    assert weights.tolist() == [[float(place >= dropped) for place in range(5)]]


def test_limit_and_deviation_are_those_of_the_pool():
    # alone, -5 and 0 have a standard deviation of 2.5; both rows drop their one token. Together the second row has the
    # farther one
    first, second = tokens([0.0, 0.0, -4.0], [-1.0] * 3), tokens([0.0, -5.0], [-1.0] * 2)
    rule = ClipV(mu=1.0)
    assert [rule(row).tolist() for row in (first, second)] == [[[1.0, 1.0, 0.0]], [[1.0, 0.0]]]
    pool = Pool([first, second])
    together = [rule(replace(row, pool=pool)).tolist() for row in (first, second)]
    assert together == [[[1.0, 1.0, 1.0]], [[1.0, 0.0]]]


@pytest.mark.parametrize("sides", ["negative_low", "both"])
def test_equal_tokens_or_none_are_all_kept(sides):
    # the deviation is 0, so that every token would be beyond it
    rule = ClipV(mu=8.5, sides=sides)
    assert rule(tokens([-3.0] * 5, [-1.0] * 5)).tolist() == [ALL]
    assert rule(tokens([-3.0], [-1.0])).tolist() == [[1.0]]
    assert rule(tokens(LOW, [-1.0] * 5, mask=[0] * 5)).tolist() == [ALL]


def test_excess_is_what_an_update_costs_in_entropy():
    # one step along A d log pi(y) / dz = A (onehot(y) - pi) changes entropy by -A D in the limit
    logits = torch.tensor([1.0, 0.2, -0.5, -2.0], dtype=torch.float64)
    for word in range(4):
        probabilities = logits.softmax(-1)
        logps = logits.log_softmax(-1)
        entropy = -(probabilities * logps).sum()
        expected = (probabilities**2 * (entropy + logps)).sum()
        row = torch.ones(1, 1, dtype=torch.float64)
        given = Tokens(row * logps[word], row, row * entropy, -row, row > 0, expected_discriminator=row * expected)
        moved = (logits - 1e-5 * (torch.eye(4)[word] - probabilities)).softmax(-1)  # A = -1
        change = (-(moved * moved.log()).sum() - entropy) / 1e-5
        assert change.item() == pytest.approx(excess(given).item(), abs=1e-4)


def test_expectation_reaches_the_rule_in_the_trainer():
    given, logits = table_case(scale=4.0)
    plain = table_gradient(table(logits, plain=True), given)
    rules = {"clip_v": {"mu": 0.0, "max_share": 1.0, "sides": "both"}}  # drops all
    assert table_gradient(table(logits, token_weights=rules), given).abs().max() == 0
    assert plain.abs().max() > 0


@pytest.mark.parametrize("value", [-0.1, math.inf])
def test_mu_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="mu must be a number >= 0, got"):
        ClipV(mu=value)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_max_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="max_share must be a number >= 0 and <= 1, got"):
        ClipV(max_share=value)


def test_unknown_sides_are_refused():
    with pytest.raises(ValueError, match="sides must be 'negative_low' or 'both', got None"):
        ClipV(sides=None)
