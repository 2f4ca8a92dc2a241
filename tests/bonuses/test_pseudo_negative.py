import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import PseudoNegative


def tokens(groups: list[list[float]]) -> Tokens:
    """One completion of each of these groups."""
    zeros = torch.zeros(len(groups), 3)
    return Tokens(zeros, zeros, zeros, zeros, torch.ones(len(groups), 3).bool(), group_rewards=torch.tensor(groups))


def bonus(rewards: list[float], **parameters) -> float:
    (value,) = PseudoNegative(**parameters)(tokens([rewards])).unique().tolist()
    return value


@pytest.mark.parametrize("size", [2, 4, 8, 16, 100])
def test_bonus_is_the_standardized_advantage_beside_one_wrong_completion(size):
    rewards = torch.tensor([1.0] * size + [0.0], dtype=torch.float64)
    advantages = (rewards - rewards.mean()) / rewards.std(correction=0)
    assert bonus([1.0] * size) == pytest.approx(advantages[0].item(), rel=1e-6)


def test_bonus_by_hand():
    # 1 / sqrt(4), halved by its coefficient
    assert bonus([1.0] * 4) == 0.5
    assert bonus([1.0] * 4, coef=0.5) == 0.25


@pytest.mark.parametrize("rewards", [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, 1.0], [1.0, math.nan, 1.0]])
def test_other_groups_have_none(rewards):
    assert bonus(rewards) == 0.0


def test_correct_is_a_reward_above_one_half():
    assert bonus([0.51, 2.0, 0.9, 1.0]) == 0.5


def test_groups_of_a_batch_are_told_apart():
    given = tokens([[1.0] * 4, [1.0, 1.0, 1.0, 0.0]])
    assert PseudoNegative()(given).tolist() == [[0.5] * 3, [0.0] * 3]


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_coefficient_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="coef must be a number >= 0, got"):
        PseudoNegative(coef=value)


def test_it_gives_whole_completions_what_their_group_asks_for():
    assert not PseudoNegative.token_selective
    assert PseudoNegative.needs == {"group_rewards"}
