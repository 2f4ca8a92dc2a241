import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.weights import HighEntropy


def tokens(entropies: list[list[float]], mask=None, **changes) -> Tokens:
    values = torch.tensor(entropies)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Tokens(values, values, values, values, mask, **changes)


def test_weights_by_hand():
    # the 0.6-quantile of 0, 1, 2, 3, 4, 5 is the value at 0.6 * 5 = 3, so 3, 4 and 5 stay
    given = tokens([[5.0, 0.0, 3.0], [1.0, 4.0, 2.0]])
    assert HighEntropy(fraction=0.4)(given).tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def test_quantile_is_over_trained_tokens_alone():
    # of the trained 1, 2, 3 the 0.5-quantile is 2
    given = tokens([[1.0, 2.0, 3.0, 99.0]], mask=[[1, 1, 1, 0]])
    assert HighEntropy(fraction=0.5)(given)[0, :3].tolist() == [0.0, 1.0, 1.0]


def test_quantile_is_over_the_pool():
    # with 10, 20, 30 of another micro-batch the 0.5-quantile of 1, 2, 3, 10, 20, 30 is 6.5: none of ours stays
    given, other = tokens([[1.0, 2.0, 3.0]]), tokens([[10.0, 20.0, 30.0]])
    given = replace(given, pool=Pool([given, other]))
    assert HighEntropy(fraction=0.5)(given).tolist() == [[0.0, 0.0, 0.0]]


def test_equal_entropies_all_stay():
    assert HighEntropy(fraction=0.1)(tokens([[2.0, 2.0, 2.0]])).tolist() == [[1.0, 1.0, 1.0]]


def test_fraction_of_zero_keeps_the_largest_and_of_one_all():
    given = tokens([[1.0, 3.0, 2.0]])
    assert HighEntropy(fraction=0.0)(given).tolist() == [[0.0, 1.0, 0.0]]
    assert HighEntropy(fraction=1.0)(given).tolist() == [[1.0, 1.0, 1.0]]


def test_no_trained_token_is_no_error():
    assert HighEntropy(fraction=0.5)(tokens([[1.0, 2.0]], mask=[[0, 0]])).isfinite().all()


def test_rounded_entropies_are_compared_with_the_exact_quantile():
    # 0.5-quantile of 1 and 1.0078125 (the next number in bfloat16) is 1.00390625, which bfloat16 rounds to 1
    values = torch.tensor([[1.0, 1.0078125]], dtype=torch.bfloat16)
    given = Tokens(values, values, values, values, torch.ones(1, 2, dtype=torch.bool))
    assert HighEntropy(fraction=0.5)(given).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_fraction_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="fraction must be a number >= 0 and <= 1, got"):
        HighEntropy(fraction=value)


def test_it_selects_tokens():
    assert HighEntropy.token_selective
