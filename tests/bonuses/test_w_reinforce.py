import math

import pytest
import torch
from toy import chosen_logps, logged, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import WReinforce


def tokens(rewards: list[float], advantages: list[float]) -> Tokens:
    advantages = torch.tensor(advantages).unsqueeze(1).expand(-1, 2)
    zeros = torch.zeros_like(advantages)
    return Tokens(zeros, zeros, zeros, advantages, zeros.bool().logical_not(), rewards=torch.tensor(rewards))


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ({}, [0.125, 0.125, -1.0, -1.0, 0.0]),
        ({"positive_coef": 0.0}, [0.0, 0.0, -1.0, -1.0, 0.0]),  # NSR
        ({"positive_coef": 1.0, "negative_coef": 0.0}, [1.0, 1.0, 0.0, 0.0, 0.0]),  # PSR
    ],
)
def test_advantages_by_hand(coefficients, expected):
    given = tokens([1.0, 0.75, 0.5, 0.0, math.nan], [0.5, -0.25, 2.0, 0.0, 0.0])
    bonus = WReinforce(**{"positive_coef": 0.125, **coefficients})(given)
    assert (given.advantages + bonus).tolist() == [[value, value] for value in expected]


def test_defaults_are_the_released_ones():
    assert WReinforce() == WReinforce(positive_coef=0.1, negative_coef=1.0)


def test_gradient_of_a_wrong_group_pushes_all_of_it_down():
    # dJ/dz_v = -r (1[v = y] - pi(v)), and 0 where r < 1 - 0.2; over the number of tokens
    given, logits = table_case()
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    given |= {"advantages": torch.zeros(8).double(), "rewards": torch.zeros(8)}
    ratio = (chosen_logps(logits, ids) - given["old_per_token_logps"]).exp()
    factor = torch.where(mask & (ratio >= 0.8), -ratio, 0.0) / mask.sum()
    expected = factor.unsqueeze(-1) * (torch.nn.functional.one_hot(ids.long(), logits.size(-1)) - logits.softmax(-1))
    actual = table_gradient(table(logits, advantage_bonuses={"w_reinforce": {}}), given)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)
    assert not table_gradient(table(logits), given).any()


def test_wrong_groups_train(run):
    settings = {"reward_funcs": lambda completions, **kwargs: [0.0] * len(completions), "max_steps": 1}
    assert logged(run(**settings), "grad_norm") == [0.0]
    trainer = run(**settings, advantage_bonuses={"w_reinforce": {}})
    assert logged(trainer, "grad_norm")[0] > 0
    assert logged(trainer, "advantage_bonuses/w_reinforce/mean") == [-1.0]


@pytest.mark.parametrize("name", ["positive_coef", "negative_coef"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_coefficient_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        WReinforce(**{name: value})


def test_it_gives_whole_completions_what_their_reward_asks_for():
    assert not WReinforce.token_selective
    assert WReinforce.needs == set()
