import math
from dataclasses import replace

import pytest
import torch
from test_tokens import bandit_entropy_change

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.scores import discriminator
from trl_entropy.rules.weights import ClipB


def tokens(entropies: list[float], advantages: list[float], mask=None, **changes) -> Tokens:
    """Tokens of probability 1, so that S = 1 * (H + 0) = H."""
    entropies, advantages = torch.tensor([entropies]), torch.tensor([advantages])
    zeros = torch.zeros_like(entropies)
    mask = torch.ones_like(zeros, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
    return Tokens(zeros, zeros, entropies, advantages, mask, **changes)


# Mean 4, deviations 1, 1, 1, 1, -4, standard deviation sqrt((4 + 16) / 5) = 2
LOW = [5.0, 5.0, 5.0, 5.0, 0.0]
ALL = [1.0, 1.0, 1.0, 1.0, 1.0]


def test_discriminator_by_hand():
    # 0.5 * (1 + log 0.5) = 0.5 * 0.3068528
    row = torch.tensor([[0.5]])
    given = Tokens(row.log(), row.log(), torch.ones(1, 1), row, row > 0)
    assert discriminator(given).item() == pytest.approx(0.1534264, rel=1e-6)


@pytest.mark.parametrize(("mu", "last"), [(1.9, 0.0), (2.0, 1.0), (2.5, 1.0)])
def test_weights_by_hand(mu, last):
    # -4 < -1.9 * 2, but not < -2 * 2
    assert ClipB(mu=mu)(tokens(LOW, [-1.0] * 5)).tolist() == [[1.0, 1.0, 1.0, 1.0, last]]


@pytest.mark.parametrize(("advantage", "last"), [(1.0, 1.0), (0.0, 1.0), (-0.1, 0.0)])
def test_released_form_drops_penalties_alone(advantage, last):
    assert ClipB(mu=1.0)(tokens(LOW, [-1.0] * 4 + [advantage]))[0, 4] == last


def test_released_form_leaves_the_upper_side_alone():
    # deviations -1, -1, -1, -1, 4
    assert ClipB(mu=1.5)(tokens([0.0, 0.0, 0.0, 0.0, 5.0], [-1.0] * 5)).tolist() == [ALL]


@pytest.mark.parametrize("entropies", [LOW, [0.0, 0.0, 0.0, 0.0, 5.0]])
@pytest.mark.parametrize(("advantage", "last"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0)])
def test_general_form_drops_both_sides_and_signs(entropies, advantage, last):
    # where the advantage is 0 there is no update to drop
    given = tokens(entropies, [-1.0] * 4 + [advantage])
    assert ClipB(mu=1.9, sides="both")(given).tolist() == [[1.0, 1.0, 1.0, 1.0, last]]


def test_mu_of_zero_drops_every_penalty_below_the_mean():
    assert ClipB(mu=0.0)(tokens([1.0, 2.0, 3.0, 6.0], [-1.0, 1.0, -1.0, -1.0])).tolist() == [[0.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("max_share", "dropped"), [(0.0, 0), (0.1, 1), (0.35, 1), (0.4, 2), (0.6, 3), (1.0, 3)])
def test_limit_takes_the_farthest_first(max_share, dropped):
    # mean 6 of 0, 3, 4, 10, 13: three are below. 0.35 * 5 = 1.75
    weights = ClipB(mu=0.0, max_share=max_share)(tokens([0.0, 3.0, 4.0, 10.0, 13.0], [-1.0] * 5))
    assert weights.tolist() == [[float(place >= dropped) for place in range(5)]]


def test_limit_splits_ties():
    weights = ClipB(mu=0.0, max_share=0.5)(tokens([0.0, 0.0, 0.0, 4.0], [-1.0] * 4))
    assert (weights == 0).sum() == 2
    assert weights[0, 3] == 1


def test_statistics_are_over_trained_tokens_alone():
    given = tokens([*LOW, 1000.0], [-1.0] * 6, mask=[1, 1, 1, 1, 1, 0])
    assert ClipB(mu=1.9)(given)[0, :5].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_statistics_are_over_the_pool():
    # alone, 0 and 5 are one standard deviation from their mean
    first, second = tokens([5.0, 5.0, 5.0], [-1.0] * 3), tokens([5.0, 0.0], [-1.0] * 2)
    assert ClipB(mu=1.9)(second).tolist() == [[1.0, 1.0]]
    pool = Pool([first, second])
    assert ClipB(mu=1.9)(replace(second, pool=pool)).tolist() == [[1.0, 0.0]]
    assert ClipB(mu=1.9)(replace(first, pool=pool)).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("sides", ["negative_low", "both"])
def test_equal_tokens_or_none_are_all_kept(sides):
    rule = ClipB(mu=0.0, sides=sides)
    assert rule(tokens([0.3] * 5, [-1.0] * 5)).tolist() == [ALL]
    assert rule(tokens([0.3], [-1.0])).tolist() == [[1.0]]
    assert rule(tokens(LOW, [-1.0] * 5, mask=[0] * 5)).tolist() == [ALL]


def change(rule: ClipB, rewarded: int) -> float:
    probabilities = torch.tensor([0.97, 0.02, 0.01], dtype=torch.float64)
    rewards = torch.zeros(3, dtype=torch.float64)
    rewards[rewarded] = 1.0
    return bandit_entropy_change(rule, rewards, probabilities)


@pytest.mark.parametrize("rewarded", range(3))
def test_released_form_raises_entropy_the_more_it_drops(rewarded):
    # S - mean is 1.4, -0.88 and -0.52 standard deviations, so 0.9 drops none
    assert change(ClipB(mu=0.4), rewarded) > change(ClipB(mu=0.9), rewarded) + 1e-9


def test_general_form_can_do_either_so_no_direction_is_declared():
    # rewarded 0: its reward, which lowers entropy, is dropped at either mu, the other two penalties at 0.4 alone.
    # rewarded 1: 0.4 drops all, also the reward of an unlikely token, which raises entropy
    differences = [change(ClipB(mu=0.4, sides="both"), r) - change(ClipB(mu=0.9, sides="both"), r) for r in (0, 1)]
    assert differences[0] > 1e-9
    assert differences[1] < -1e-9


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_mu_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="mu must be a number >= 0, got"):
        ClipB(mu=value)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_max_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="max_share must be a number >= 0 and <= 1, got"):
        ClipB(max_share=value)


def test_unknown_sides_are_refused():
    with pytest.raises(ValueError, match="sides must be 'negative_low' or 'both', got 'low'"):
        ClipB(sides="low")
