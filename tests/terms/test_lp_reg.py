import math

import pytest
import torch
from toy import chosen_logps, distance, seen_in, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.looks import KeptMass
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.terms import LpReg


WORDS = torch.tensor([0.6, 0.3, 0.09, 0.01])


def tokens(sampled: list[int], advantages: list[float], look=None, words=WORDS) -> Tokens:
    """Tokens that are all drawn from one distribution."""
    logits = words.log().expand(1, len(sampled), -1)
    ids = torch.tensor([sampled])
    logps = chosen_logps(logits, ids).requires_grad_()
    zeros = torch.zeros_like(logps)
    seen = seen_in(logits, ids, [look or KeptMass(0.02)])
    return Tokens(logps, None, zeros, torch.tensor([advantages]), zeros == 0, vocabulary=seen)


def test_term_and_gradient_by_hand():
    # below 0.02 * 0.6 lies the last word alone, so each of the others gains x = -log 0.99; e^x = 1 / 0.99
    given = tokens([0, 2, 1], [-1.0, -2.0, 1.0])
    term = LpReg(coef=2.0, share=0.5)(given)
    expected = 2 * (1 / 0.99 - 1 + math.log(0.99))
    torch.testing.assert_close(term, torch.tensor([[0.0, expected, 0.0]]), rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 2 * (1 - 1 / 0.99), 0.0]]), rtol=1e-4, atol=0)


def test_noise_gets_nothing():
    # the last word is the least likely one, and left out of the proxy
    given = tokens([0, 3, 1], [-1.0, -1.0, -1.0])
    assert (LpReg(share=0.4)(given) == 0).all()
    assert (LpReg(share=1.0)(given) != 0).tolist() == [[True, False, True]]


def test_fixed_threshold_is_a_probability():
    look = KeptMass(0.2, relative=False)  # 0.9 is kept; of the largest probability it would be 0.99
    given = tokens([1], [-1.0], look)
    term = LpReg(kappa=0.2, threshold="fixed")(given)
    assert term.item() == pytest.approx(1 / 0.9 - 1 + math.log(0.9), rel=1e-4)


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.99, 3), (1.0, 4)])
def test_share_is_of_the_negative_tokens_and_at_least_one(share, number):
    given = tokens([0, 1, 2, 0, 1, 2], [-1.0, -1.0, -1.0, -1.0, 1.0, 0.0])
    assert (LpReg(share=share)(given) != 0).sum() == number


def test_least_likely_ones_are_those_of_the_step():
    given = tokens([1, 2], [-1.0, -1.0])
    other = tokens([2, 2], [-1.0, -1.0])
    rule = LpReg(share=0.5)
    assert (rule(given) != 0).tolist() == [[False, True]]
    given = given.with_pool(Pool([given.detach(), other.detach()]))  # three tokens of 0.09, of which two are chosen
    assert (rule(given) != 0).sum() <= 1


def test_estimate_is_bounded():
    # of 0.02, 98 times 0.01, the first alone is kept: x = 3.9, and e^x - 1 - x = 45
    words = torch.tensor([0.02] + 98 * [0.01])
    given = tokens([0], [-1.0], KeptMass(0.9), words)
    term = LpReg(kappa=0.9)(given)
    assert term.item() == 10
    assert torch.autograd.grad(term.sum(), given.logps)[0].item() == 0


def released(logits, given, share: float, kappa: float) -> torch.Tensor:
    """What the released loss adds to the tokens of a micro-batch, token by token, with the policy's own proxy."""
    ids, mask = given["completion_ids"].long(), given["completion_mask"].bool()
    total, candidates = 0.0, []
    for row in range(len(ids)):
        for place in range(ids.shape[1]):
            if mask[row, place] and given["advantages"][row] < 0:
                candidates.append((logits[row, place].log_softmax(-1)[ids[row, place]], row, place))
    candidates.sort(key=lambda candidate: candidate[0].item())
    for logp, row, place in candidates[: max(1, int(len(candidates) * share))]:
        probabilities = logits[row, place].detach().softmax(-1)
        cut = logits[row, place].detach().masked_fill(probabilities < kappa * probabilities.max(), -1e4)
        target = cut.log_softmax(-1)[ids[row, place]]
        if logp < target:
            total = total + torch.exp(target - logp) - (target - logp) - 1
    return total / mask.sum()


@pytest.mark.parametrize(("share", "kappa"), [(0.3, 0.1), (0.5, 0.2), (1.0, 0.3)])
def test_gradient_is_that_of_the_released_code(share, kappa):
    given, logits = table_case()
    without = table_gradient(table(logits, plain=True, loss_type="dapo"), given)
    rule = {"lp_reg": {"share": share, "kappa": kappa}}
    both = table_gradient(table(logits, loss_type="dapo", loss_terms=rule), given)
    expected_of = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-released(expected_of, given, share, kappa), expected_of)
    assert expected.norm() > 1e-3
    assert distance(both - without, expected) < 1e-9


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_value_out_of_range_is_refused(value):
    for name in ("share", "kappa"):
        with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
            LpReg(**{name: value})


def test_other_settings_are_refused():
    with pytest.raises(ValueError, match="kappa must be > 0, got 0: with it no token is noise"):
        LpReg(kappa=0.0)
    with pytest.raises(ValueError, match="threshold must be 'relative' or 'fixed', got 'minp'"):
        LpReg(threshold="minp")
    with pytest.raises(ValueError, match="coef must be a number >= 0, got"):
        LpReg(coef=-1.0)


def test_settings_turn_it_off_and_name_what_it_needs():
    assert LpReg(share=0.0).neutral
    assert LpReg(kappa=0.1).needs == {"pool", KeptMass(0.1)}
    assert LpReg(threshold="fixed").needs == {"pool", KeptMass(0.02, relative=False)}
