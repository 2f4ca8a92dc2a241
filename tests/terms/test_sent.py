import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.terms import Sent


# The 0.8-quantile is the value at place 0.8 * 4 = 3.2, rounded up to 4: the first four are below it
ENTROPIES = [0.1, 0.2, 0.3, 0.4, 2.0]
HIGHEST_ALONE = {"coef": 1.0, "high_coef": 1.0, "low_coef": 0.0}


def tokens(logps: list[float], advantages: list[float], entropies=None, change=0.5, mask=None) -> Tokens:
    """Tokens whose log-probabilities are `change` above those of the reference and of the old policy."""
    logps = torch.tensor([logps], requires_grad=True)
    other = logps.detach() - change
    entropies = torch.tensor([ENTROPIES if entropies is None else entropies])
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
    return Tokens(logps, other, entropies, torch.tensor([advantages]), mask, ref_logps=other)


# Paper: means over all five are 1 and -2, so the covariances are 2 * 1 = 2 and four times 0
PAPER = {"logps": [-1.0, -2.0, -2.0, -2.0, -3.0], "advantages": [3.0, -1.0, 3.0, -1.0, 1.0]}
# Code: means over the first four are 1 and -2, so theirs are 2 * 1 = 2, -2 * 1 = -2, 0 and 0
CODE = {"logps": [-1.0, -1.0, -3.0, -3.0, -9.0], "advantages": [3.0, -1.0, 1.0, 1.0, 100.0]}


def test_paper_form_by_hand():
    # x = -log 2: d = exp(log 2) - 1 - log 2 = 0.3068528. Highest: 0.1 * 2 d; the rest of low entropy: 0.1 * 0.5 d.
    # The gradient of d is 1 - exp(log 2) = -1
    given = tokens(**PAPER, change=-math.log(2))
    term = Sent()(given)
    expected = [[0.06137056, 0.01534264, 0.01534264, 0.01534264, 0.0]]
    torch.testing.assert_close(term, torch.tensor(expected))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, torch.tensor([[-0.2, -0.05, -0.05, -0.05, 0.0]]))


@pytest.mark.parametrize(("change", "slope"), [(0.5, 1.0), (-0.5, -1.0)])
def test_code_form_by_hand(change, slope):
    # highest 0.1 * 2 * 0.5, lowest 0.1 * 0.5 * 0.5, nothing between
    given = tokens(**CODE, change=change)
    term = Sent(form="code")(given)
    torch.testing.assert_close(term, torch.tensor([[0.1, 0.025, 0.0, 0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, slope * torch.tensor([[0.2, 0.05, 0.0, 0.0, 0.0]]))


def test_forms_differ_in_the_tokens_of_the_means():
    # over all five the means are 20.8 and -3.4: -17.8 * 2.4, -21.8 * 2.4, and -19.8 * 0.4 twice, which are the largest
    # of low entropy; over the first four it is the first token
    given = tokens(**CODE)
    highest = {form: (Sent(form=form, **HIGHEST_ALONE)(given) != 0)[0].tolist() for form in ("paper", "code")}
    assert highest["code"] == [True, False, False, False, False]
    assert not any(highest["paper"][place] for place in (0, 1, 4))
    assert sum(highest["paper"]) == 1


def test_form_decides_the_other_policy():
    given = tokens(**PAPER)
    zeros = torch.zeros(1, 5)
    without_reference = replace(given, ref_logps=given.logps.detach(), pool=None)
    assert torch.equal(Sent()(without_reference), zeros)
    assert (Sent(form="code")(without_reference) != 0).any()
    on_policy = replace(given, old_logps=given.logps.detach(), pool=None)
    term = Sent(form="code")(on_policy)
    assert torch.equal(term, zeros)
    assert (torch.autograd.grad(term.sum(), given.logps)[0] == 0).all()
    assert (Sent()(on_policy) != 0).any()


@pytest.mark.parametrize(("share", "highest"), [(0.0, 0), (2e-4, 1), (0.49, 1), (0.5, 2), (1.0, 4)])
def test_share_is_of_the_low_entropy_tokens_and_at_least_one(share, highest):
    assert (Sent(share=share, **HIGHEST_ALONE)(tokens(**PAPER)) != 0).sum() == highest


@pytest.mark.parametrize(("low_share", "low"), [(0.0, 0), (0.5, 2), (0.8, 4), (1.0, 5)])
def test_low_share_is_that_of_the_tokens_of_low_entropy(low_share, low):
    # at 0.5 the quantile is 0.3, and two lie below
    term = Sent(low_share=low_share)(tokens(**PAPER))
    assert (term != 0)[0].tolist() == [place < low for place in range(5)]


def test_equal_entropies_are_not_low():
    given = tokens(**PAPER, entropies=[0.5] * 5)
    assert (Sent()(given) == 0).all()
    assert (Sent(low_share=1.0)(given) != 0).all()


def test_token_of_highest_and_lowest_covariance_counts_as_lowest():
    # of two tokens one is of low entropy: 0.1 * 0.5 * 0.5
    given = tokens([-1.0, -2.0], [1.0, -1.0], entropies=[0.1, 2.0])
    torch.testing.assert_close(Sent(form="code")(given), torch.tensor([[0.025, 0.0]]))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_sets_are_those_of_the_pool(form):
    whole = tokens(**(PAPER if form == "paper" else CODE))
    facts = ("logps", "old_logps", "entropies", "advantages", "mask", "ref_logps")
    places = (slice(0, 2), slice(2, 5))
    parts = [Tokens(**{name: getattr(whole, name)[:, place] for name in facts}) for place in places]
    pool = Pool([part.detach() for part in parts])
    rule = Sent(form=form)
    together = torch.cat([rule(replace(part, pool=pool)) for part in parts], dim=1)
    torch.testing.assert_close(together, rule(whole))
    assert not torch.equal(torch.cat([rule(part) for part in parts], dim=1), together)


def test_far_off_token_of_high_entropy_does_not_matter():
    # exp(200) is inf in float32
    given = tokens(**PAPER)
    far = given.ref_logps.clone()
    far[0, 4] = given.logps[0, 4].detach() + 200
    term = Sent()(replace(given, ref_logps=far, pool=None))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    assert term.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("form", ["paper", "code"])
def test_no_trained_token_and_one_are_no_error(form):
    assert (Sent(form=form)(tokens(**PAPER, mask=[0] * 5)) == 0).all()
    assert (Sent(form=form)(tokens([-1.0], [1.0], entropies=[0.5])) == 0).all()  # not below its own quantile


def test_only_the_paper_form_needs_a_reference():
    assert Sent().needs == {"pool", "ref_logps"}
    assert Sent(form="code").needs == {"pool"}
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none", "beta": 0.0}
    with pytest.raises(ValueError, match="set beta > 0"):
        EntropyGRPOConfig(**settings, loss_terms={"sent": {}})
    EntropyGRPOConfig(**settings, loss_terms={"sent": {"form": "code"}})


@pytest.mark.parametrize("name", ["coef", "high_coef", "low_coef"])
@pytest.mark.parametrize("value", [-0.1, math.inf])
def test_coefficient_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        Sent(**{name: value})


@pytest.mark.parametrize("name", ["share", "low_share"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_share_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
        Sent(**{name: value})


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form must be 'paper' or 'code', got 'both'"):
        Sent(form="both")
