import math

import pytest
import torch
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.rules.weights import AsymGRPO


def tokens(rewards: list[list[float]], advantages: list[float]) -> Tokens:
    advantages = torch.tensor(advantages).unsqueeze(1).expand(-1, 2)
    zeros, mask = torch.zeros_like(advantages), torch.ones_like(advantages, dtype=torch.bool)
    return Tokens(zeros, zeros, zeros, advantages, mask, group_rewards=torch.tensor(rewards))


def test_weights_by_hand():
    # one of five right: (1 - p) / p = 4. A right completion: 4^(1 - 1/2) = 2, a wrong one: (1/4)^(0 - 1/2) = 2
    hard = [1.0, 0.0, 0.0, 0.0, 0.0]
    given = tokens([hard, hard, hard], [2.0, -0.5, 0.0])
    assert AsymGRPO(beta_pos=1.0, beta_neg=0.0)(given).tolist() == [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0]]
    # four of five right: (1 - p) / p = 1/4. (1/4)^(1/2) = 1/2 and 4^(-1/2) = 1/2
    easy = [1.0, 1.0, 0.0, 1.0, 1.0]
    given = tokens([easy, easy], [0.5, -2.0])
    assert AsymGRPO(beta_pos=1.0, beta_neg=0.0)(given).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_defaults_are_the_exponents_of_the_paper():
    # 4^0.4 for right and (1/4)^-0.1 for wrong completions
    given = tokens([[1.0, 0.0, 0.0, 0.0, 0.0]] * 2, [2.0, -0.5])
    expected = torch.tensor([[4**0.4] * 2, [4**0.1] * 2])
    torch.testing.assert_close(AsymGRPO()(given), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("right", [1, 2, 5, 7])
@pytest.mark.parametrize(("beta_pos", "beta_neg"), [(0.9, 0.4), (0.0, 1.3)])
def test_exponents_of_the_advantage_of_trl_become_those_given(right, beta_pos, beta_neg):
    # |A| = (wrong / right)^(1/2) or its inverse, but for a common factor from TRL's standard deviation
    rewards = torch.tensor([1.0] * right + [0.0] * (8 - right))
    advantages = (rewards - rewards.mean()) / rewards.std()
    given = tokens([rewards.tolist()] * 8, advantages.tolist())
    odds = (8 - right) / right
    expected = torch.where(rewards == 1, odds**beta_pos, -(odds**-beta_neg)) * math.sqrt(7 / 8)
    actual = (AsymGRPO(beta_pos=beta_pos, beta_neg=beta_neg)(given) * given.advantages)[:, 0]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("rewards", [[1.0] * 4, [0.0] * 4, [math.nan] * 4, [1.0, math.nan, math.nan, math.nan]])
def test_group_with_all_or_none_right_has_weight_one(rewards):
    assert AsymGRPO()(tokens([rewards] * 2, [2.0, -2.0])).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_missing_reward_does_not_count():
    # one right, four wrong and one without a reward: 4^(1/2), not 5^(1/2)
    given = tokens([[1.0, 0.0, math.nan, 0.0, 0.0, 0.0]], [1.0])
    assert AsymGRPO(beta_pos=1.0)(given).tolist() == [[2.0, 2.0]]


def test_threshold_is_strict():
    # above 0.2: two of ten, so (1 - p) / p = 4
    given = tokens([[0.3, 0.9, 0.2, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, -1.0]], [1.0])
    assert AsymGRPO(beta_pos=1.0, threshold=0.2)(given).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "1"])
@pytest.mark.parametrize("name", ["beta_pos", "beta_neg"])
def test_exponent_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        AsymGRPO(**{name: value})


def test_it_weights_whole_completions():
    assert not AsymGRPO.token_selective  # so it stands with sequence-level ratios
    assert AsymGRPO.needs == {"group_rewards"}
    assert AsymGRPO()(random_tokens(dtype=torch.bfloat16)).dtype == torch.bfloat16
