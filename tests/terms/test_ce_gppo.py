import math

import pytest
import torch
from toy import chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.terms import CeGPPO


def tokens(ratios: list[float], advantages: list[float], **changes) -> Tokens:
    logps = torch.full((1, len(ratios)), -3.0, requires_grad=True)
    old_logps = logps.detach() - torch.tensor([ratios]).log()
    mask = torch.ones(1, len(ratios), dtype=torch.bool)
    return Tokens(logps, old_logps, logps.detach(), torch.tensor([advantages]), mask, **changes)


def test_value_and_gradient_by_hand():
    # range [0.8, 1.28]: -0.5 * 0.8 * -2 = 0.8 below it, -0.25 * 1.28 * 3 = -0.96 above it, 0 inside of it and where
    # the clip is on the other side
    given = tokens([0.5, 2.0, 0.9, 1.2, 2.0, 0.5, 2.0], [-2.0, 3.0, -2.0, 3.0, -2.0, 3.0, 0.0], clip_range=(0.2, 0.28))
    term = CeGPPO(beta_low=0.5, beta_high=0.25)(given)
    expected = torch.tensor([[0.8, -0.96, 0.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(term, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


def test_size_of_the_ratio_does_not_matter_beyond_the_range():
    near, far = (CeGPPO()(tokens([ratio], [1.0])).item() for ratio in (1.21, 1e20))
    assert near == far


def test_each_side_can_be_off():
    given = tokens([0.5, 2.0], [-1.0, 1.0])
    assert CeGPPO(beta_low=0.0)(given)[0, 0] == 0
    assert CeGPPO(beta_high=0.0)(given)[0, 1] == 0
    assert not CeGPPO(beta_low=0.0).neutral
    assert CeGPPO(beta_low=0.0, beta_high=0.0).neutral


@pytest.mark.parametrize("clip_range", [(0.2, 0.2), (0.0, 0.0)])
def test_strictly_on_policy_it_does_nothing(clip_range):
    given = tokens([1.0, 1.0], [-2.0, 3.0], clip_range=clip_range)
    assert CeGPPO()(given).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("clip_range", [(0.2, 0.2), (0.1, 0.3)])
def test_it_adds_the_gradient_of_a_token_at_the_edge_of_the_range(clip_range):
    # dJ/dz_v = beta (1 - low or 1 + high) A (1[v = y] - pi(v)) / N on the tokens that the clip has stopped
    low, high = clip_range
    beta_low, beta_high = 0.6, 0.9
    given, logits = table_case()
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    ratio = (chosen_logps(logits, ids) - given["old_per_token_logps"]).exp()
    advantages = given["advantages"].unsqueeze(1).expand_as(ratio)
    below, above = mask & (advantages < 0) & (ratio < 1 - low), mask & (advantages > 0) & (ratio > 1 + high)
    assert below.any()
    assert above.any()
    edge = beta_low * (1 - low) * below.double() + beta_high * (1 + high) * above.double()
    factor = edge * advantages / mask.sum()
    onehot = torch.nn.functional.one_hot(ids.long(), logits.size(-1))
    expected = factor.unsqueeze(-1) * (onehot - logits.softmax(-1))

    settings = {"epsilon": low, "epsilon_high": high}
    without = table_gradient(table(logits, plain=True, **settings), given)
    terms = {"ce_gppo": {"beta_low": beta_low, "beta_high": beta_high}}
    both = table_gradient(table(logits, loss_terms=terms, **settings), given)
    assert distance(both - without, expected) < 1e-10


def test_no_trained_token_is_no_error():
    ones = torch.ones(1, 2)
    assert CeGPPO()(Tokens(ones, -ones, ones, ones, ~ones.bool())).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["beta_low", "beta_high"])
def test_strength_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        CeGPPO(**{name: value})


def test_it_selects_tokens_and_needs_a_clip_of_tokens():
    assert CeGPPO.token_selective
    assert CeGPPO.needs == {"clipped"}
