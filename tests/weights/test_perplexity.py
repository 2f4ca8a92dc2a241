import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.pool import Pool
from trl_entropy.weights import Perplexity


def tokens(old_probabilities: list[list[float]], mask=None) -> Tokens:
    old_logps = torch.tensor(old_probabilities).log()
    mask = torch.ones_like(old_logps, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    zeros = torch.zeros_like(old_logps)
    return Tokens(zeros, old_logps, zeros, zeros, mask)  # the fresh log-probs are others


# log-perplexities log 2 and 3 log 2: mean 2 log 2, deviation log 2, so z = -1 and 1
TWO = tokens([[0.5, 0.5], [0.125, 0.9]], mask=[[1, 1], [1, 0]])


def of_rows(rule: Perplexity, given: Tokens) -> torch.Tensor:
    weights = rule(given)
    assert torch.equal(weights, weights[:, :1].expand_as(weights))
    return weights[:, 0]


def near(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=1e-5)  # 1e-6 is in the deviation


def test_weights_by_hand():
    near(of_rows(Perplexity(alpha=0.1), TWO), [1.1, 0.9])
    near(of_rows(Perplexity(alpha=-0.1), TWO), [0.9, 1.1])


def test_weights_are_limited():
    # 1.5 and 0.5 before the limit of 0.2
    near(of_rows(Perplexity(alpha=0.5), TWO), [1.2, 0.8])
    near(of_rows(Perplexity(alpha=0.5, limit=1.0), TWO), [1.5, 0.5])
    near(of_rows(Perplexity(alpha=1.0, limit=1.0), TWO), [2.0, 0.0])


def test_limit_of_zero_is_neutral():
    assert Perplexity(limit=0.0).neutral
    assert Perplexity(alpha=1.0, limit=0.0)(TWO).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_deviation_is_that_of_the_population():
    # log-perplexities 0, 0 and 3 log 2: mean log 2, variance 2 log^2 2, z = -1 / sqrt(2) twice and sqrt(2)
    given = tokens([[1.0], [1.0], [0.125]])
    near(of_rows(Perplexity(alpha=0.1), given), [1 + 0.1 / math.sqrt(2)] * 2 + [1 - 0.1 * math.sqrt(2)])


def test_mean_and_deviation_are_over_the_pool():
    first, second = (tokens([row]) for row in ([0.5, 0.5], [0.125, 0.125]))
    pool = Pool([first, second])
    near(of_rows(Perplexity(alpha=0.1), replace(first, pool=pool)), [1.1])
    near(of_rows(Perplexity(alpha=0.1), replace(second, pool=pool)), [0.9])


def test_completion_without_a_trained_token_does_not_count():
    given = tokens([[0.5], [0.125], [0.001]], mask=[[1], [1], [0]])
    near(of_rows(Perplexity(alpha=0.1), given)[:2], [1.1, 0.9])
    assert Perplexity(alpha=0.1)(given).isfinite().all()


def test_no_trained_token_is_no_error():
    assert Perplexity()(tokens([[0.5, 0.5]], mask=[[0, 0]])).isfinite().all()


def test_equal_perplexities_have_weight_one():
    assert Perplexity(alpha=1.0)(tokens([[0.3, 0.6]])).tolist() == [[1.0, 1.0]]
    assert Perplexity(alpha=1.0)(tokens([[0.3, 0.6], [0.3, 0.6]])).tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("value", [-1.1, 1.1, math.nan])
def test_alpha_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="alpha must be a number >= -1 and <= 1, got"):
        Perplexity(alpha=value)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_limit_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="limit must be a number >= 0 and <= 1, got"):
        Perplexity(limit=value)


def test_it_weights_whole_completions():
    assert not Perplexity.token_selective  # so it stands with sequence-level ratios
    assert Perplexity.needs == {"pool"}
