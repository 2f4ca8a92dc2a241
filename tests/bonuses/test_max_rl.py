import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import MaxRL


def tokens(rewards: list[float]) -> Tokens:
    """One row for each completion of a group, with advantages that are not TRL's."""
    rewards = torch.tensor(rewards)
    advantages = torch.linspace(-1, 2, len(rewards)).unsqueeze(1).expand(-1, 2)
    zeros, mask = torch.zeros_like(advantages), torch.ones_like(advantages, dtype=torch.bool)
    groups = rewards.expand(len(rewards), -1)
    return Tokens(zeros, zeros, zeros, advantages, mask, rewards=rewards, group_rewards=groups)


def advantages(rewards: list[float], **parameters) -> list[float]:
    given = tokens(rewards)
    values = given.advantages + MaxRL(**parameters)(given)
    assert torch.equal(values[:, 0], values[:, 1])
    return values[:, 0].tolist()


def test_advantages_by_hand():
    # a quarter right: (1 - 1/4) / (1/4) = 3, and -1
    assert advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx([3.0, -1.0, -1.0, -1.0], rel=1e-5)
    # mean 1.5
    assert advantages([3.0, 0.0, 1.5]) == pytest.approx([1.0, -1.0, 0.0], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("right", range(9))
def test_it_is_the_released_formula(right):
    rewards = [1.0] * right + [0.0] * (8 - right)
    mean = sum(rewards) / 8
    expected = [(reward - mean) / (mean + 1e-6) for reward in rewards]
    assert advantages(rewards) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_it_is_near_the_gradient_of_the_logarithm_of_the_chance_to_be_right():
    # right is the first of two words; the mean over all outcomes of a group of 64, weighed by how likely they are
    logit, size = torch.tensor(-1.0, dtype=torch.float64), 64
    p = logit.sigmoid().item()
    gradient = 0.0
    for right in range(size + 1):
        chance = math.comb(size, right) * p**right * (1 - p) ** (size - right)
        if right == 0:
            continue
        a = advantages([1.0] * right + [0.0] * (size - right))
        # d log pi / d logit is 1 - p of the right word, and -p of the other
        gradient += chance * (right * a[0] * (1 - p) + (size - right) * a[-1] * -p) / size
    # d log p / d logit = 1 - p; the baseline of the same group takes about 1 / 64 of it
    assert gradient == pytest.approx(1 - p, rel=0.03)


@pytest.mark.parametrize("rewards", [[0.0, 0.0], [-1.0, 0.5], [math.nan, math.nan]])
def test_group_without_a_mean_above_0_has_no_advantage(rewards):
    assert advantages(rewards) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_missing_reward_does_not_count_and_has_no_advantage():
    assert advantages([1.0, math.nan, 0.0]) == pytest.approx([1.0, 0.0, -1.0], rel=1e-5, abs=1e-6)


def test_strength_lies_between_the_advantages():
    given = tokens([1.0, 0.0, 0.0, 0.0])
    half, whole = (MaxRL(strength=strength)(given) for strength in (0.5, 1.0))
    torch.testing.assert_close(2 * half, whole)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_strength_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="strength must be a number >= 0 and <= 1, got"):
        MaxRL(strength=value)


def test_it_is_the_same_for_whole_completions():
    assert not MaxRL.token_selective
    assert MaxRL.needs == {"group_rewards"}
