import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.weights import A3PO


def tokens(probabilities: list[list[float]], advantages: list[float], mask=None, **changes) -> Tokens:
    logps = torch.tensor(probabilities).log()
    advantages = torch.tensor(advantages).unsqueeze(1).expand_as(logps)
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Tokens(logps, logps, logps, advantages, mask, **changes)


def test_weights_by_hand():
    # 0.4 of five tokens are two: the least likely of a right completion, the most likely of a wrong one
    row = [0.9, 0.1, 0.5, 0.3, 0.7]
    weights = A3PO(factor=3.0, share=0.4)(tokens([row, row, row], [2.0, -0.5, 0.0]))
    assert weights.tolist() == [[1.0, 3.0, 1.0, 3.0, 1.0], [3.0, 1.0, 1.0, 1.0, 3.0], [1.0] * 5]


def test_factor_decays_to_one():
    # at step 30 of 120 a quarter is gone: 1 + (3 - 1) * 3/4
    rule = A3PO(factor=3.0, share=1.0, decay_steps=120)
    for step, weight in [(0, 3.0), (30, 2.5), (60, 2.0), (120, 1.0), (500, 1.0)]:
        assert rule(tokens([[0.5]], [1.0], step=step)).item() == weight


def test_without_decay_the_factor_stays():
    assert A3PO(factor=3.0, share=1.0, decay_steps=None)(tokens([[0.5]], [1.0], step=10**6)).item() == 3.0


def test_number_is_rounded_down_but_at_least_one():
    # 0.5 of three tokens is one, and so is 0.2 of one and of two; none of none
    given = tokens([[0.5, 0.4, 0.6]] * 4, [1.0] * 4, mask=[[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    chosen = A3PO(share=0.5)(given) > 1
    assert (chosen & given.mask).tolist()[0] == [False, True, False]
    chosen = A3PO(share=0.2)(given) > 1
    assert (chosen & given.mask).sum(-1).tolist() == [1, 1, 1, 0]


def test_share_of_zero_chooses_none_and_of_one_all():
    given = tokens([[0.5, 0.4, 0.6]], [1.0])
    assert A3PO(share=0.0)(given).tolist() == [[1.0, 1.0, 1.0]]
    assert A3PO(share=1.0)(given).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_of_equal_tokens_the_first_are_chosen(advantage):
    assert A3PO(share=0.5)(tokens([[0.5] * 4], [advantage])).tolist() == [[2.0, 2.0, 1.0, 1.0]]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_padding_is_never_chosen(advantage):
    given = tokens([[0.5, 0.5, 0.5, 0.5]], [advantage], mask=[[0, 1, 0, 1]])
    assert A3PO(share=1.0)(given).tolist() == [[1.0, 2.0, 1.0, 2.0]]


def test_likelihood_is_that_of_the_old_policy():
    logps = torch.tensor([[-1.0, -2.0]])
    given = Tokens(logps, logps.flip(-1), logps, torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert A3PO(share=0.5)(given).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_factor_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="factor must be a number >= 0, got"):
        A3PO(factor=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="share must be a number >= 0 and <= 1, got"):
        A3PO(share=value)


@pytest.mark.parametrize("value", [0, -5, 1.5, True, "10"])
def test_other_decay_is_refused(value):
    with pytest.raises(ValueError, match="decay_steps must be a whole number >= 1 or null, got"):
        A3PO(decay_steps=value)


def test_it_selects_tokens_and_needs_nothing_more():
    assert A3PO.token_selective
    assert A3PO.needs == set()
    assert A3PO(share=0.0).neutral
