import math

import pytest
import torch
from test_tokens import bandit_entropy_change
from toy import chosen_logps, random_tokens, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import EntropyAdvantage


def tokens(entropies: list[float], advantages: list[float]) -> Tokens:
    entropies = torch.tensor([entropies] * len(advantages))
    advantages = torch.tensor(advantages).unsqueeze(1).expand_as(entropies)
    zeros = torch.zeros_like(entropies)
    return Tokens(zeros, zeros, entropies, advantages, torch.ones_like(entropies, dtype=torch.bool))


def test_bonus_by_hand():
    # alpha H = 0, 0.5, 2; at most |A| / 2 = 1, of either sign; 0 where the advantage is
    bonus = EntropyAdvantage(alpha=0.5)(tokens([0.0, 1.0, 4.0], [2.0, -2.0, 0.0]))
    assert bonus.tolist() == [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]


def test_kappa_is_the_divisor_of_the_largest_bonus():
    given = tokens([8.0], [2.0, -2.0])
    assert EntropyAdvantage(alpha=1.0, kappa=4.0)(given).tolist() == [[0.5], [0.5]]
    assert EntropyAdvantage(alpha=1.0, kappa=1.0)(given).tolist() == [[2.0], [2.0]]  # -2 becomes 0


@pytest.mark.parametrize("kappa", [1.0, 1.1, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sign_of_the_advantage_is_kept(kappa, dtype):
    given = random_tokens(rows=16, dtype=dtype)
    changed = given.advantages + EntropyAdvantage(alpha=100.0, kappa=kappa)(given)
    assert (changed * given.advantages >= 0).all()
    assert kappa == 1.0 or torch.equal(changed.sign(), given.advantages.sign())


def test_gradient_on_a_tabular_softmax_policy_is_the_closed_form():
    # dJ/dz_v = r (1[v = y] - pi(v)) A', A' = A + min(alpha H, |A| / kappa), and 0 where the clip stops it; the
    # entropy adds no gradient of its own
    epsilon, alpha, kappa = 0.2, 0.3, 3.0
    given, logits = table_case()
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    ratio = (chosen_logps(logits, ids) - given["old_per_token_logps"]).exp()
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    advantages = given["advantages"].unsqueeze(1).expand_as(ratio)
    clipped = ((advantages > 0) & (ratio > 1 + epsilon)) | ((advantages < 0) & (ratio < 1 - epsilon))
    bonus = torch.minimum(alpha * entropies, advantages.abs() / kappa)
    onehot = torch.nn.functional.one_hot(ids.long(), logits.size(-1))
    factor = torch.where(mask & ~clipped, ratio * (advantages + bonus), 0.0) / mask.sum()
    expected = factor.unsqueeze(-1) * (onehot - logits.softmax(-1))

    bonuses = {"entropy_advantage": {"alpha": alpha, "kappa": kappa}}
    actual = table_gradient(table(logits, epsilon=epsilon, advantage_bonuses=bonuses), given)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)
    assert ((bonus < advantages.abs() / kappa) & mask).any()  # both cases of the minimum are there
    assert ((bonus < alpha * entropies) & mask & (bonus > 0)).any()


def test_no_trained_token_is_no_error():
    ones = torch.ones(1, 2)
    assert EntropyAdvantage()(Tokens(ones, ones, ones, ones, ~ones.bool())).isfinite().all()


@pytest.mark.parametrize(
    ("probabilities", "rewarded", "alphas", "raises"),
    [
        ([0.97, 0.02, 0.01], 0, (0.4, 0.9), True),  # a sure policy: the limit binds on the likely token alone
        ([0.97, 0.02, 0.01], 1, (0.4, 0.9), True),
        # an unsure one, H = 1.75: A = 0.6 on the likely token, else -0.4, so alpha H moves from above 0.2 to below 0.3
        # where the limit binds on all others
        ([0.4, *[0.1] * 6], 0, (0.12, 0.16), False),
    ],
)
def test_effect_of_alpha_on_entropy_depends_on_the_policy(probabilities, rewarded, alphas, raises):
    probabilities = torch.tensor(probabilities, dtype=torch.float64)
    rewards = torch.nn.functional.one_hot(torch.tensor(rewarded), len(probabilities)).double()
    low, high = (bandit_entropy_change(EntropyAdvantage(alpha=alpha), rewards, probabilities) for alpha in alphas)
    assert abs(high - low) > 1e-8
    assert (high > low) is raises


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_alpha_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="alpha must be a number >= 0, got"):
        EntropyAdvantage(alpha=value)


@pytest.mark.parametrize("value", [0.99, 0.0, -2.0, math.inf])
def test_kappa_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="kappa must be a number >= 1, got"):
        EntropyAdvantage(kappa=value)


def test_it_selects_tokens_and_needs_nothing_more():
    assert EntropyAdvantage.token_selective
    assert EntropyAdvantage.needs == set()
