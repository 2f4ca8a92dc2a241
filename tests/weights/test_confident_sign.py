import math

import pytest
import torch
from toy import table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.weights import ConfidentSign


def tokens(probabilities: list[float], advantages: list[float]) -> Tokens:
    logps = torch.tensor([probabilities]).log()
    return Tokens(logps, logps, logps, torch.tensor([advantages]), torch.ones_like(logps, dtype=torch.bool))


def test_weights_by_hand():
    # alpha = -0.5: confident positives 1 - 0.5, confident negatives 1 + 0.5, unlikely tokens and A = 0 stay at 1
    given = tokens([0.99, 0.99, 0.99, 0.9, 0.9], [2.0, -3.0, 0.0, 2.0, -3.0])
    assert ConfidentSign(alpha=-0.5)(given).tolist() == [[0.5, 1.5, 1.0, 1.0, 1.0]]
    assert ConfidentSign(alpha=1.0)(given).tolist() == [[2.0, 0.0, 1.0, 1.0, 1.0]]


def test_threshold_is_a_probability_and_strict():
    given = tokens([0.5, 0.51, 0.49], [1.0, 1.0, 1.0])
    assert ConfidentSign(alpha=-0.5, threshold=0.5)(given).tolist() == [[1.0, 0.5, 1.0]]


def test_threshold_of_zero_takes_every_token_and_of_one_none():
    given = tokens([1.0, 0.3, 1e-9], [1.0, 1.0, 1.0])
    assert ConfidentSign(alpha=-0.5, threshold=0.0)(given).tolist() == [[0.5, 0.5, 0.5]]
    assert ConfidentSign(alpha=-0.5, threshold=1.0)(given).tolist() == [[1.0, 1.0, 1.0]]


def test_confidence_is_that_of_the_fresh_policy():
    ones = torch.ones(1, 1)
    given = Tokens(-0.01 * ones, -3 * ones, ones, ones, ones.bool())
    assert ConfidentSign(alpha=-1.0)(given).item() == 0.0


@pytest.mark.parametrize("value", [-1.01, 1.01, math.nan, "0", True])
def test_alpha_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="alpha must be a number >= -1 and <= 1, got"):
        ConfidentSign(alpha=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.inf])
def test_threshold_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="threshold must be a number >= 0 and <= 1, got"):
        ConfidentSign(threshold=value)


def test_it_selects_tokens():
    assert ConfidentSign.token_selective


def test_with_every_token_confident_it_is_a_weight_by_sign():
    given, logits = table_case()
    confident = table(logits, token_weights={"confident_sign": {"alpha": -0.4, "threshold": 0.0}})
    by_sign = table(logits, positive_advantage_coef=0.6, negative_advantage_coef=1.4)
    torch.testing.assert_close(
        table_gradient(confident, given), table_gradient(by_sign, given), rtol=1e-10, atol=1e-14
    )
