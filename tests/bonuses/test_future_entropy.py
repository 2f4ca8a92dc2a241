import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import FutureEntropy
from trl_entropy.rules.pool import Pool


def tokens(entropies: list[list[float]], mask=None) -> Tokens:
    values = torch.tensor(entropies)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    zeros = torch.zeros_like(values)
    return Tokens(zeros, zeros, values, zeros, mask)


def test_bonus_by_hand():
    # after 1, 2, 3 come 5, 3, 0; after the one token of the other completion comes 0
    given = tokens([[1.0, 2.0, 3.0], [4.0, 8.0, 8.0]], mask=[[1, 1, 1], [1, 0, 0]])
    bonus = FutureEntropy(beta=0.5, baseline="none")(given)
    assert bonus[0].tolist() == [2.5, 1.5, 0.0]
    assert bonus[1, 0] == 0.0
    # their mean over the four tokens is 8 / 4 = 2
    bonus = FutureEntropy(beta=0.5)(given)
    assert bonus[0].tolist() == [1.5, 0.5, -1.0]
    assert bonus[1, 0] == -1.0


def test_tokens_that_are_not_trained_do_not_count():
    # the token of entropy 2 is not trained: after 1 comes 3
    bonus = FutureEntropy(beta=1.0, baseline="none")(tokens([[1.0, 2.0, 3.0]], mask=[[1, 0, 1]]))
    assert bonus[0, [0, 2]].tolist() == [3.0, 0.0]


def test_baseline_is_over_the_pool():
    # sums 1, 0 here and 5, 0 in another micro-batch: mean 6 / 4
    given, other = tokens([[9.0, 1.0]]), tokens([[9.0, 5.0]])
    given = replace(given, pool=Pool([given, other]))
    assert FutureEntropy(beta=1.0)(given).tolist() == [[-0.5, -1.5]]
    assert FutureEntropy(beta=1.0, baseline="none")(given).tolist() == [[1.0, 0.0]]


def test_bonus_of_the_whole_step_adds_up_to_nothing():
    given = tokens([[1.0, 2.0, 3.0], [0.5, 0.25, 4.0]])
    torch.testing.assert_close(FutureEntropy(beta=1.0)(given).sum(), torch.tensor(0.0), rtol=0, atol=1e-5)


def test_one_token_has_no_future_and_none_is_no_error():
    assert FutureEntropy(beta=1.0)(tokens([[2.0]])).tolist() == [[0.0]]
    assert FutureEntropy()(tokens([[2.0, 1.0]], mask=[[0, 0]])).isfinite().all()


def test_sums_of_rounded_entropies_are_exact():
    # 300 ones in bfloat16, whose own sum would stop at 256
    ones = torch.ones(1, 301, dtype=torch.bfloat16)
    given = Tokens(ones, ones, ones, ones, torch.ones(1, 301, dtype=torch.bool))
    assert FutureEntropy(beta=1.0, baseline="none")(given)[0, 0] == 300


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_beta_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="beta must be a number >= 0, got"):
        FutureEntropy(beta=value)


def test_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="baseline must be 'mean' or 'none', got 'group'"):
        FutureEntropy(baseline="group")


def test_it_selects_tokens_and_needs_the_pool_for_its_baseline_alone():
    assert FutureEntropy.token_selective
    assert FutureEntropy().needs == {"pool"}
    assert FutureEntropy(baseline="none").needs == set()
