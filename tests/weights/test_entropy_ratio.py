import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.weights import EntropyRatio


def tokens(entropies: list[float], old_entropies: list[float] | None) -> Tokens:
    entropies = torch.tensor([entropies])
    old = None if old_entropies is None else torch.tensor([old_entropies])
    mask = torch.ones_like(entropies, dtype=torch.bool)
    return Tokens(-entropies, -entropies, entropies, torch.ones_like(entropies), mask, old_entropies=old)


def test_weights_by_hand():
    # ratios 1, 1.04, 0.96, 1.06 and 0.94 against [0.95, 1.05]
    given = tokens([2.0, 2.08, 1.92, 2.12, 1.88], [2.0] * 5)
    assert EntropyRatio()(given).tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]
    assert EntropyRatio(outside=0.25)(given).tolist() == [[1.0, 1.0, 1.0, 0.25, 0.25]]


def test_bounds_belong_to_the_range_and_differ():
    # ratios 1/2, 1/4, 3, 4
    given = tokens([1.0, 0.5, 6.0, 8.0], [2.0] * 4)
    assert EntropyRatio(beta_low=0.5, beta_high=2.0)(given).tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert EntropyRatio(beta_low=1.0, beta_high=2.0)(given).tolist() == [[1.0, 1.0, 1.0, 0.0]]


def test_entropies_of_zero():
    # 0 to 0 is no change, 0 to 1 a rise without bound, 1 to 0 a fall to 1e-8
    given = tokens([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    assert EntropyRatio()(given).tolist() == [[1.0, 0.0, 0.0]]
    assert EntropyRatio(beta_low=1.0)(given).tolist() == [[1.0, 0.0, 1.0]]


def test_entropy_rounded_to_below_zero_is_zero():
    assert EntropyRatio()(tokens([-1e-6, -1e-6], [0.0, -2e-6])).tolist() == [[1.0, 1.0]]


def test_strictly_on_policy_it_does_nothing():
    given = tokens([2.0, 0.0, 1e-7], None)
    assert EntropyRatio(beta_low=0.0, beta_high=0.0)(given).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["beta_low", "outside"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0 and <= 1, got"):
        EntropyRatio(**{name: value})


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_upper_bound_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="beta_high must be a number >= 0, got"):
        EntropyRatio(beta_high=value)


def test_it_selects_tokens():
    assert EntropyRatio.token_selective
    assert EntropyRatio.needs == {"old_entropies"}
