import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import QuantileAdvantage


NAN = math.nan


def tokens(rewards: list[float], advantages: torch.Tensor | None = None) -> Tokens:
    """One row for each completion of a group; TRL's advantages by default."""
    rewards = torch.tensor(rewards)
    if advantages is None:
        known = rewards[~rewards.isnan()]
        advantages = torch.nan_to_num((rewards - known.mean()) / (known.std() + 1e-4), nan=0.0)
    advantages = advantages.unsqueeze(1).expand(-1, 2)
    zeros, mask = torch.zeros_like(advantages), torch.ones_like(advantages, dtype=torch.bool)
    return Tokens(zeros, zeros, zeros, advantages, mask, group_rewards=rewards.expand(len(rewards), -1))


def advantage(given: Tokens, **parameters) -> list[float]:
    return (given.advantages + QuantileAdvantage(**parameters)(given))[:, 0].tolist()


def test_bonus_by_hand():
    # rewards 0, 0, 0, 4: mean 1, sum of squares 3 + 9 = 12, std (12 / 3)^(1/2) = 2; the 0.4-quantile is 0
    given = tokens([0.0, 0.0, 0.0, 4.0])
    torch.testing.assert_close(QuantileAdvantage()(given), torch.full((4, 2), 1 / 2.0001), rtol=1e-6, atol=0)
    half = QuantileAdvantage(strength=0.5)(given)
    torch.testing.assert_close(half, torch.full((4, 2), 0.5 / 2.0001), rtol=1e-6, atol=0)


def test_hard_group_trains_on_right_completions_alone():
    # p = 3/5 <= 1 - 0.4: baseline 0
    wrong, right = pytest.approx(0, abs=1e-5), pytest.approx(1 / (math.sqrt(0.3) + 1e-4), rel=1e-5)
    assert advantage(tokens([1.0, 0.0, 1.0, 0.0, 1.0])) == [right, wrong, right, wrong, right]


def test_easy_group_trains_on_wrong_completions_alone():
    # p = 4/5 > 1 - 0.4: baseline 1
    right, wrong = pytest.approx(0, abs=1e-5), pytest.approx(-1 / (math.sqrt(0.2) + 1e-4), rel=1e-5)
    assert advantage(tokens([1.0, 0.0, 1.0, 1.0, 1.0])) == [right, wrong, right, right, right]


@pytest.mark.parametrize("size", [2, 3, 5, 8, 10, 16, 30])
@pytest.mark.parametrize("k", [0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9])
def test_baseline_of_binary_rewards_is_the_gate_of_the_paper(k, size):
    for right in range(1, size):
        given = tokens([1.0] * right + [0.0] * (size - right))
        kept = advantage(given, k=k)
        hard = round(k * 10) * size <= 10 * (size - right)  # p <= 1 - K in whole numbers
        assert (abs(kept[-1]) < 1e-4) is hard
        assert (abs(kept[0]) < 1e-4) is not hard


@pytest.mark.parametrize(
    ("k", "interpolation", "baseline"),
    [
        (0.0, "none", -1.0),
        (0.25, "none", -1.0),  # a quarter is at most -1
        (0.26, "none", 0.0),
        (0.4, "none", 0.0),
        (0.75, "none", 2.0),
        (1.0, "none", 5.0),
        (0.0, "linear", -1.0),
        (0.4, "linear", 0.4),  # place 0.4 * 3 = 1.2 between 0 and 2
        (0.5, "linear", 1.0),
        (1.0, "linear", 5.0),
    ],
)
def test_quantile_of_other_rewards(k, interpolation, baseline):
    # rewards 2, -1, 5, 0 have mean 3/2; their std is not looked at
    given = tokens([2.0, -1.0, 5.0, 0.0])
    parameters = {"k": k, "interpolation": interpolation}
    std = given.group_rewards[0].std() + 1e-4
    expected = torch.full((4, 2), (1.5 - baseline) / std.item())
    torch.testing.assert_close(QuantileAdvantage(**parameters)(given), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [0.2, 0.4, 0.7])
def test_linear_is_the_quantile_of_torch(k):
    rewards = torch.rand(7, generator=torch.Generator().manual_seed(0))
    expected = (rewards.mean() - rewards.quantile(k)) / (rewards.std() + 1e-4)
    actual = QuantileAdvantage(k=k, interpolation="linear")(tokens(rewards.tolist()))
    torch.testing.assert_close(actual, expected.expand(7, 2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["none", "linear"])
@pytest.mark.parametrize("k", [0.0, 0.4, 1.0])
def test_equal_rewards_have_no_bonus(k, interpolation):
    given = tokens([0.5, 0.5, 0.5], advantages=torch.zeros(3))
    assert QuantileAdvantage(k=k, interpolation=interpolation)(given).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("interpolation", ["none", "linear"])
@pytest.mark.parametrize("rewards", [[NAN, NAN, NAN], [1.0, NAN, NAN]])
def test_group_without_two_rewards_has_no_bonus(rewards, interpolation):
    given = tokens(rewards, advantages=torch.zeros(3))
    assert QuantileAdvantage(interpolation=interpolation)(given).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("interpolation", ["none", "linear"])
def test_missing_reward_does_not_count_and_gets_no_bonus(interpolation):
    # the statistics of 0, 0, 0, 4
    bonus = QuantileAdvantage(interpolation=interpolation)(tokens([0.0, 0.0, NAN, 0.0, 4.0]))
    expected = torch.full((5, 2), 1 / 2.0001)
    expected[2] = 0
    torch.testing.assert_close(bonus, expected, rtol=1e-6, atol=0)


def test_completion_at_the_mean_gets_a_bonus_if_no_reward_is_missing():
    # rewards 0, 1, 2: mean 1, std 1; the 0.4-quantile is 1 and the 0.3-quantile is 0
    assert QuantileAdvantage(k=0.4)(tokens([0.0, 1.0, 2.0]))[1, 0] == 0
    assert QuantileAdvantage(k=0.3)(tokens([0.0, 1.0, 2.0]))[1, 0].item() == pytest.approx(1 / 1.0001)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["k", "strength"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
        QuantileAdvantage(**{name: value})


def test_another_interpolation_is_refused():
    with pytest.raises(ValueError, match="interpolation must be 'none' or 'linear', got 'nearest'"):
        QuantileAdvantage(interpolation="nearest")


def test_it_is_the_same_for_whole_completions():
    assert not QuantileAdvantage.token_selective  # so it stands with sequence-level ratios
    assert QuantileAdvantage.needs == {"group_rewards"}
