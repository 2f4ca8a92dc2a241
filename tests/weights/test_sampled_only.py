import pytest
import torch
from toy import random_tokens

from trl_entropy.rules.weights import SampledOnly


def test_weights_by_hand():
    tokens = random_tokens(offline=torch.tensor([False, True, True, False]))
    assert SampledOnly()(tokens).tolist() == [[1.0] * 5, [0.0] * 5, [0.0] * 5, [1.0] * 5]


def test_without_stored_solutions_it_is_the_identity():
    assert (SampledOnly()(random_tokens(offline=None)) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_of_the_type_of_the_log_probs(dtype):
    assert SampledOnly()(random_tokens(dtype=dtype)).dtype == dtype


def test_it_weights_whole_completions():
    assert not SampledOnly.token_selective  # so it stands with sequence-level ratios
    assert SampledOnly.needs == {"offline"}
