import math

import pytest
import torch
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.bonuses import RepoR


def tokens(logps: list[float], advantages: list[float]) -> Tokens:
    logps = torch.tensor([logps])
    return Tokens(logps, logps, -logps, torch.tensor([advantages]), torch.ones_like(logps, dtype=torch.bool))


def test_bonuses_by_hand():
    # zeta = 1/4: 2/4 * 3 and 2/4 * 1 up, whatever the sign; nothing for A = 0 and for sure tokens
    given = tokens([-2.0, -2.0, -6.0, -6.0, 0.0], [3.0, -1.0, -1.0, 0.0, 1.0])
    assert RepoR(zeta=0.25)(given).tolist() == [[1.5, 0.5, 1.5, 0.0, 0.0]]


def test_it_is_the_formula_of_the_paper():
    given = random_tokens()
    zeta, advantages, logps = 0.4, given.advantages, given.logps
    expected = torch.where(advantages > 0, advantages * (1 - zeta * logps), advantages * (1 + zeta * logps))
    torch.testing.assert_close(advantages + RepoR(zeta=zeta)(given), expected, rtol=1e-6, atol=1e-7)


def test_no_trained_token_is_no_error():
    ones = torch.ones(1, 2)
    assert RepoR()(Tokens(-ones, -ones, ones, ones, ~ones.bool())).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_zeta_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="zeta must be a number >= 0 and <= 1, got"):
        RepoR(zeta=value)


def test_it_selects_tokens_and_needs_nothing_more():
    assert RepoR.token_selective
    assert RepoR.needs == set()
