import math

import pytest
import torch
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import RepoR


def tokens(logps: list[float], advantages: list[float]) -> Tokens:
    logps = torch.tensor([logps], dtype=torch.float64)
    return Tokens(logps, logps, -logps, torch.tensor([advantages]).double(), torch.ones_like(logps, dtype=torch.bool))


def test_bonuses_by_hand():
    # zeta = 1/32: 2/32 * 3 and 2/32 * 1 up, whatever the sign; nothing for A = 0 and for sure tokens
    given = tokens([-2.0, -2.0, -8.0, -8.0, 0.0], [3.0, -1.0, -1.0, 0.0, 1.0])
    assert RepoR(zeta=1 / 32)(given).tolist() == [[0.1875, 0.0625, 0.25, 0.0, 0.0]]
    assert RepoR(zeta=-1 / 32)(given).tolist() == [[-0.1875, -0.0625, -0.25, 0.0, 0.0]]


def test_log_probs_count_down_to_minus_20():
    # at zeta = 0.05 that takes the whole of a wrong token's advantage, and never more
    given = tokens([-16.0, -20.0, -40.0, -40.0], [-2.0, -2.0, -2.0, 2.0])
    expected = [-2.0 * (1 - 0.8), 0.0, 0.0, 4.0]
    assert (given.advantages + RepoR(zeta=0.05)(given))[0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("zeta", [-0.05, -1e-4, 1e-4, 0.01, 0.05])
def test_it_is_the_formula_of_the_paper(zeta):
    size = {"rows": 64, "length": 32, "dtype": torch.float64}
    given = random_tokens(**size, logps=8 * random_tokens(**size).logps)
    bonus = RepoR(zeta=zeta)(given)
    for advantage, logp, found in zip(
        *(x[given.mask].tolist() for x in (given.advantages, given.logps, given.advantages + bonus)), strict=True
    ):
        logp = max(logp, -20.0)
        if advantage > 0:
            expected = max(0.0, advantage * (1 - zeta * logp))
        elif advantage < 0:
            expected = min(0.0, advantage * (1 + zeta * logp))
        else:
            expected = 0.0
        assert found == pytest.approx(expected, abs=1e-12)
        assert found * advantage >= 0
    assert given.logps.min() < -20


def test_no_trained_token_is_no_error():
    ones = torch.ones(1, 2)
    assert RepoR()(Tokens(-ones, -ones, ones, ones, ~ones.bool())).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("value", [-0.051, 0.1, math.nan])
def test_zeta_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"zeta must be a number >= -0\.05 and <= 0\.05, got"):
        RepoR(zeta=value)


def test_it_selects_tokens_and_needs_nothing_more():
    assert RepoR.token_selective
    assert RepoR.needs == set()
