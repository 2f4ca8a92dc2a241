import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.measures.mismatch import mismatch


def test_gap_between_sampler_and_old_policy_by_hand():
    # 0.5 up, 1 down, one token that the engine has not scored, and one that is not trained on
    old, sampler = torch.tensor([[-1.5, -1.0, -2.0, -3.0]]), torch.tensor([[-1.0, -2.0, math.nan, -9.0]])
    mask = torch.tensor([[True, True, True, False]])
    values = mismatch(Tokens(old - 5, old, old, old, mask, sampling_logps=sampler))
    assert {name: value[chosen].float().tolist() for name, (value, chosen) in values.items()} == {
        "mismatch/log_ratio": [0.5, 1.0],
        "mismatch/beyond_factor_2": [0.0, 1.0],
    }


@pytest.mark.parametrize(("gap", "beyond"), [(0.69, False), (0.70, True)])  # log 2 = 0.693
def test_bound_is_a_factor_of_two(gap, beyond):
    logps = torch.full((1, 1), -3.0)
    for sampler in (logps + gap, logps - gap):
        values = mismatch(Tokens(logps, logps, logps, logps, logps < 0, sampling_logps=sampler))
        assert values["mismatch/beyond_factor_2"][0].item() is beyond


def test_without_log_probs_of_the_sampler_there_is_none():
    logps = torch.full((1, 1), -3.0)
    assert mismatch(Tokens(logps, logps, logps, logps, logps < 0)) == {}
