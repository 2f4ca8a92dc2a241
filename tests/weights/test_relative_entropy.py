import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.weights import RelativeEntropy


def tokens(entropies: list[list[float]], mask=None, **changes) -> Tokens:
    values = torch.tensor(entropies)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Tokens(values, values, values, values, mask, **changes)


def test_weights_by_hand():
    # mean entropies 2, 4 and 0, their mean 2: ratios 1, 2 and 0; with strength 1/2 half as far from 1
    given = tokens([[1.0, 3.0], [4.0, 9.0], [0.0, 0.0]], mask=[[1, 1], [1, 0], [1, 1]])
    assert RelativeEntropy()(given).tolist() == [[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
    assert RelativeEntropy(strength=0.5)(given).tolist() == [[1.0, 1.0], [1.5, 1.5], [0.5, 0.5]]


def test_mean_is_over_completions_and_not_over_tokens():
    # mean entropies 1 and 4, their mean 2.5 although three of four tokens have entropy 1
    given = tokens([[1.0, 1.0, 1.0], [4.0, 0.0, 0.0]], mask=[[1, 1, 1], [1, 0, 0]])
    torch.testing.assert_close(RelativeEntropy()(given)[:, 0], torch.tensor([0.4, 1.6]), rtol=1e-6, atol=0)


def test_mean_is_over_the_pool():
    # mean entropies 1 here, 2 and 3 in another micro-batch: mean 2
    given, other = tokens([[1.0, 1.0]]), tokens([[2.0, 2.0], [3.0, 3.0]])
    given = replace(given, pool=Pool([given, other]))
    assert RelativeEntropy()(given).tolist() == [[0.5, 0.5]]


def test_completion_without_a_trained_token_does_not_count():
    given = tokens([[1.0], [3.0], [50.0]], mask=[[1], [1], [0]])
    weights = RelativeEntropy()(given)
    assert weights[:2].tolist() == [[0.5], [1.5]]
    assert weights.isfinite().all()


def test_no_trained_token_is_no_error():
    assert RelativeEntropy()(tokens([[1.0, 2.0]], mask=[[0, 0]])).isfinite().all()


@pytest.mark.parametrize("entropy", [0.0, 0.7])
def test_equal_entropies_all_have_weight_one(entropy):
    assert RelativeEntropy()(tokens([[entropy] * 3] * 2)).tolist() == [[1.0] * 3] * 2


def test_entropy_rounded_to_below_zero_gives_no_negative_weight():
    # ratios 0 / 0.5 and 1 / 0.5
    assert RelativeEntropy()(tokens([[-1e-7], [1.0]])).tolist() == [[0.0], [2.0]]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_strength_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="strength must be a number >= 0 and <= 1, got"):
        RelativeEntropy(strength=value)


def test_it_weights_whole_completions():
    assert not RelativeEntropy.token_selective  # so it stands with sequence-level ratios
    assert RelativeEntropy.needs == {"pool"}
