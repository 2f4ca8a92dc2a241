import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.terms import KlCov


def tokens(logps: list[list[float]], advantages: list[list[float]], old: list[list[float]], **changes) -> Tokens:
    logps = torch.tensor(logps, requires_grad=True)
    mask = changes.pop("mask", torch.ones_like(logps, dtype=torch.bool))
    zeros = torch.zeros_like(logps)
    return Tokens(logps, torch.tensor(old), zeros, torch.tensor(advantages), mask, **changes)


# Means are 1 and -2, so the covariances are 2 * 1 = 2, 2 * -1 = -2, 0 and 0
LOGPS, ADVANTAGES = [[-1.0, -3.0], [-2.0, -2.0]], [[3.0, 3.0], [-1.0, -1.0]]
UP, DOWN = [[-1.5, -4.0], [-3.0, -3.0]], [[-0.5, -4.0], [-3.0, -3.0]]  # x = 0.5 or -0.5 at the first token


@pytest.mark.parametrize(("old", "slope"), [(UP, 1.0), (DOWN, -1.0)])
def test_term_and_gradient_by_hand(old, slope):
    # share 0.25 of 4 tokens is one: covariance 2. coef |x| = 0.4 * 0.5, its gradient coef sign(x)
    given = tokens(LOGPS, ADVANTAGES, old)
    term = KlCov(coef=0.4, share=0.25)(given)
    torch.testing.assert_close(term, torch.tensor([[0.2, 0.0], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, torch.tensor([[0.4 * slope, 0.0], [0.0, 0.0]]))


def test_divergence_k3_by_hand():
    # exp(0.5) - 1 - 0.5 = 0.1487213; its gradient is exp(0.5) - 1 = 0.6487213
    given = tokens(LOGPS, ADVANTAGES, UP)
    term = KlCov(coef=2.0, share=0.25, divergence="k3")(given)
    torch.testing.assert_close(term, torch.tensor([[0.2974425, 0.0], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, torch.tensor([[1.2974425, 0.0], [0.0, 0.0]]))


def test_mean_of_k3_over_samples_of_the_old_policy_is_the_divergence_of_the_paper():
    old, new = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.2, 0.6]])
    given = tokens(new.log().tolist(), [[0.0] * 3], old.log().tolist())
    term = KlCov(share=1.0, divergence="k3")(given)  # all three words
    # KL(old || new) = 0.5 log 2.5 + 0.3 log 1.5 + 0.2 log 1/3
    expected = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) - 0.2 * math.log(3)
    assert (old * term).sum().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("divergence", ["abs", "k3"])
def test_strictly_on_policy_value_and_gradient_are_zero(divergence):
    given = tokens(LOGPS, ADVANTAGES, LOGPS)
    term = KlCov(share=1.0, divergence=divergence)(given)
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    assert (term == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize(("share", "number"), [(2e-4, 1), (0.49, 1), (0.5, 2), (1.0, 4), (0.0, 0)])
def test_number_is_rounded_down_but_at_least_one(share, number):
    # of the two tokens of covariance 0 one is taken for 2 of 4; the one of covariance -2 comes last
    term = KlCov(share=share)(tokens(LOGPS, ADVANTAGES, UP))
    assert (term != 0).sum() == number
    assert (term[0, 1] != 0) == (number == 4)


def test_highest_covariance_is_that_of_the_pool():
    # alone, each row has A equal to its mean: ties. Together the first token has 2
    rows = [tokens([LOGPS[row]], [ADVANTAGES[row]], [UP[row]]) for row in range(2)]
    pool = Pool([row.detach() for row in rows])
    terms = [KlCov(share=0.25)(replace(row, pool=pool)).tolist() for row in rows]
    assert terms == [[[0.5, 0.0]], [[0.0, 0.0]]]
    assert [(KlCov(share=0.25)(row) != 0).sum().item() for row in rows] == [1, 1]


def test_far_off_token_that_is_not_chosen_does_not_matter():
    # exp(200) is inf in float32
    given = tokens([[-1.0, -3.0]] * 2, [[3.0, 3.0], [-1.0, -1.0]], [[-1.5, -203.0], [-1.0, -3.5]])
    term = KlCov(share=0.25, divergence="k3")(given)
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    assert term.isfinite().all()
    assert gradient.isfinite().all()
    assert (term != 0).sum() == 1


def test_no_trained_token_is_no_error():
    given = tokens(LOGPS, ADVANTAGES, UP, mask=torch.zeros(2, 2, dtype=torch.bool))
    assert (KlCov()(given) == 0).all()


def test_one_token_is_the_highest():
    assert KlCov()(tokens([[-1.0]], [[2.0]], [[-1.5]])).tolist() == [[0.5]]


def test_either_of_coef_and_share_turns_it_off():
    given = tokens(LOGPS, ADVANTAGES, UP)
    for rule in (KlCov(coef=0.0), KlCov(share=0.0)):
        assert rule.neutral
        assert (rule(given) == 0).all()


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_coef_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="coef must be a number >= 0, got"):
        KlCov(coef=value)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="share must be a number >= 0 and <= 1, got"):
        KlCov(share=value)


def test_unknown_divergence_is_refused():
    with pytest.raises(ValueError, match="divergence must be 'abs' or 'k3', got 'k1'"):
        KlCov(divergence="k1")
