import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.scores import covariances
from trl_entropy.rules.weights import ClipCov


def tokens(logps: list[list[float]], advantages: list[list[float]], old=None, mask=None, **changes) -> Tokens:
    logps, advantages = torch.tensor(logps), torch.tensor(advantages)
    old = logps if old is None else torch.tensor(old)
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Tokens(logps, old, torch.zeros_like(logps), advantages, mask, **changes)


# Means are 0 and -2, so the covariances are 2 * 1 = 2, 2 * -1 = -2, -2 * 1 = -2 and -2 * -1 = 2
LOGPS, ADVANTAGES = [[-1.0, -3.0], [-1.0, -3.0]], [[2.0, 2.0], [-2.0, -2.0]]
BOTH = [[0.0, 1.0], [1.0, 0.0]]  # the two tokens of covariance 2 are dropped
NONE = [[1.0, 1.0], [1.0, 1.0]]


def test_covariances_by_hand():
    given = tokens(LOGPS, ADVANTAGES)
    assert covariances(given.pool)(given).tolist() == [[2.0, -2.0], [-2.0, 2.0]]


def test_means_of_covariances_may_be_over_some_tokens():
    # over the first column they are 0 and -1: 2 * 0, 2 * -2, -2 * 0, -2 * -2
    given = tokens(LOGPS, ADVANTAGES)
    first = torch.tensor([[True, False], [True, False]])
    assert covariances(given.pool, lambda batch: first)(given).tolist() == [[0.0, -4.0], [0.0, 4.0]]


def test_means_are_over_trained_tokens_alone():
    # with the last column masked the means are 0 and -2 as before
    given = tokens([[-1.0, -3.0, -50.0], [-1.0, -3.0, -50.0]], [[2.0] * 3, [-2.0] * 3], mask=[[1, 1, 0], [1, 1, 0]])
    assert covariances(given.pool)(given)[:, :2].tolist() == [[2.0, -2.0], [-2.0, 2.0]]


def test_weights_by_hand():
    # share 0.5 of 4 tokens is 2: all that lie between 1 and 5
    assert ClipCov(share=0.5)(tokens(LOGPS, ADVANTAGES)).tolist() == BOTH


def test_both_bounds_are_strict():
    given = tokens(LOGPS, ADVANTAGES)
    assert ClipCov(share=0.5, low=2.0)(given).tolist() == NONE
    assert ClipCov(share=0.5, high=2.0)(given).tolist() == NONE
    assert ClipCov(share=0.5, low=-3.0, high=-1.0)(given).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_tokens_that_the_clip_has_stopped_are_not_chosen():
    # first token: A > 0 and r = e > 1.2; last: A < 0 and r = exp(-2) < 0.8
    first = tokens(LOGPS, ADVANTAGES, old=[[-2.0, -3.0], [-1.0, -3.0]])
    assert ClipCov(share=0.5)(first).tolist() == [[1.0, 1.0], [1.0, 0.0]]
    last = tokens(LOGPS, ADVANTAGES, old=[[-1.0, -3.0], [-1.0, -1.0]])
    assert ClipCov(share=0.5)(last).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    wide = replace(first, clip_range=(1.0, 2.0), pool=None)  # e < 1 + 2
    assert ClipCov(share=0.5)(wide).tolist() == BOTH


@pytest.mark.parametrize("share", [2e-4, 0.25, 0.49])
def test_number_is_rounded_down_but_at_least_one_is_dropped(share):
    # 4 * 2e-4 = 0.0008, 4 * 0.25 = 1, 4 * 0.49 = 1.96
    weights = ClipCov(share=share)(tokens(LOGPS, ADVANTAGES))
    assert (weights == 0).sum() == 1
    assert (weights[torch.tensor(BOTH) == 1] == 1).all()


def test_choice_is_random_and_the_same_for_the_same_step():
    rule, given = ClipCov(share=0.25), tokens(LOGPS, ADVANTAGES)
    steps = [rule(replace(given, step=step, pool=None)) for step in range(30)]
    assert {tuple(weights.flatten().tolist()) for weights in steps} == {(0, 1, 1, 1), (1, 1, 1, 0)}
    assert torch.equal(rule(replace(given, step=7, pool=None)), steps[7])


def test_means_and_number_are_those_of_the_pool():
    # alone, each row has A equal to its mean, so every covariance is 0
    rows = [tokens([logps], [advantages]) for logps, advantages in zip(LOGPS, ADVANTAGES, strict=True)]
    assert [ClipCov(share=0.5)(row).tolist() for row in rows] == [[[1.0, 1.0]], [[1.0, 1.0]]]
    pool = Pool(rows)
    assert [ClipCov(share=0.5)(replace(row, pool=pool)).tolist() for row in rows] == [[BOTH[0]], [BOTH[1]]]


def test_nothing_to_drop():
    rule = ClipCov(share=1.0)
    assert rule(tokens([[-1.0]], [[3.0]])).tolist() == [[1.0]]  # one token is its own mean
    assert rule(tokens(LOGPS, ADVANTAGES, mask=[[0, 0], [0, 0]])).tolist() == NONE
    assert ClipCov(share=0.0)(tokens(LOGPS, ADVANTAGES)).tolist() == NONE


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="share must be a number >= 0 and <= 1, got"):
        ClipCov(share=value)


@pytest.mark.parametrize(("low", "high"), [(5.0, 1.0), (2.0, 2.0)])
def test_empty_range_of_covariances_is_refused(low, high):
    with pytest.raises(ValueError, match=f"low must be below high, got low={low:g}, high={high:g}"):
        ClipCov(low=low, high=high)


def test_bound_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="low must be a number, got inf"):
        ClipCov(low=math.inf)
