import math
from dataclasses import replace

import pytest
import torch
from test_tokens import bandit_entropy_change

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import Repo
from trl_entropy.rules.pool import Pool


def tokens(logps: list[list[float]], entropies: list[list[float]] | None = None, mask=None) -> Tokens:
    logps = torch.tensor(logps)
    entropies = torch.ones_like(logps) if entropies is None else torch.tensor(entropies)
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Tokens(logps, logps, entropies, torch.zeros_like(logps), mask)


def test_bonus_by_hand():
    # mean of -1, -3, -2 is -2; padding does not count
    given = tokens([[-1.0, -3.0], [-2.0, -90.0]], mask=[[1, 1], [1, 0]])
    assert Repo(beta=0.5, center="step")(given)[given.mask].tolist() == [-0.5, 0.5, 0.0]


def test_mean_is_over_the_pool():
    # with -5 of another micro-batch the mean of -1, -3, -5 is -3
    given, other = tokens([[-1.0, -3.0]]), tokens([[-5.0]])
    given = replace(given, pool=Pool([given, other]))
    assert Repo(beta=0.5, center="step")(given).tolist() == [[-1.0, 0.0]]


def test_center_of_the_position_is_its_entropy():
    # L = log pi + H: -1 + 3 and -3 + 1
    given = tokens([[-1.0, -3.0]], entropies=[[3.0, 1.0]])
    assert Repo(beta=0.5)(given).tolist() == [[-1.0, 1.0]]
    assert Repo(beta=0.5) == Repo(beta=0.5, center="position")


def test_one_token_and_no_trained_token():
    assert Repo(center="step")(tokens([[-1.0]])).item() == 0.0
    assert Repo(center="step")(tokens([[-1.0]], mask=[[0]])).isfinite().all()


@pytest.mark.parametrize("center", ["step", "position"])
def test_on_policy_the_expected_gradient_is_that_of_the_entropy(center):
    # d/dz of E[-beta L log pi] with L held fixed, sum over actions of pi L (onehot - pi), is beta dH/dz
    logits = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logps = logits.log_softmax(-1)
    entropy = -(logps.exp() * logps).sum()
    (expected,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    chosen = logps.unsqueeze(1)
    facts = (chosen.detach(), chosen.detach(), entropy.detach().expand(6, 1), torch.zeros_like(chosen).detach())
    bonus = Repo(beta=0.3, center=center)(Tokens(*facts, torch.ones(6, 1, dtype=torch.bool)))
    (actual,) = torch.autograd.grad((logps.exp().detach() * bonus[:, 0] * logps).sum(), logits)
    torch.testing.assert_close(actual, 0.3 * expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rewarded", [0, 1, 2])
@pytest.mark.parametrize("probabilities", [[0.97, 0.02, 0.01], [0.5, 0.3, 0.2]])
@pytest.mark.parametrize("center", ["step", "position"])
def test_it_raises_entropy(center, probabilities, rewarded):
    probabilities = torch.tensor(probabilities, dtype=torch.float64)
    rewards = torch.nn.functional.one_hot(torch.tensor(rewarded), 3).double()
    low, high = (bandit_entropy_change(Repo(beta, center), rewards, probabilities) for beta in (0.01, 0.1))
    assert high > low


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_beta_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="beta must be a number >= 0, got"):
        Repo(beta=value)


def test_another_center_is_refused():
    with pytest.raises(ValueError, match="center must be 'step' or 'position', got 'group'"):
        Repo(center="group")


def test_it_selects_tokens_and_says_what_it_needs():
    assert Repo.token_selective
    assert Repo().needs == set()
    assert Repo(center="step").needs == {"pool"}
