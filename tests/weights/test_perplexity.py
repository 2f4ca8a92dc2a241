import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.weights import Perplexity


def tokens(old_probabilities: list[list[float]], mask=None) -> Tokens:
    old_logps = torch.tensor(old_probabilities).log()
    mask = torch.ones_like(old_logps, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    zeros = torch.zeros_like(old_logps)
    return Tokens(zeros, old_logps, zeros, zeros, mask)  # the fresh log-probs are others


# log-perplexities log 2 and 3 log 2: mean 2 log 2, deviation log 2, so z = -1 and 1
TWO = tokens([[0.5, 0.5], [0.125, 0.9]], mask=[[1, 1], [1, 0]])


def in_group(log_perplexities: list[list[float]], alpha: float = 0.1) -> list[float]:
    """The weight of the first completion of each group."""
    values = torch.tensor(log_perplexities)
    given = tokens([[math.exp(-group[0])] for group in log_perplexities])
    return of_rows(Perplexity(alpha=alpha), replace(given, group_logps=-values)).tolist()


def of_rows(rule: Perplexity, given: Tokens) -> torch.Tensor:
    weights = rule(given)
    assert torch.equal(weights, weights[:, :1].expand_as(weights))
    return weights[:, 0]


def near(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=1e-5)  # 1e-6 is in the deviation


@pytest.mark.parametrize(
    ("log_perplexities", "expected"),
    [
        # mean 2, variance (1 + 1) / 2
        ([1.0, 3.0], 1.1),
        ([3.0, 1.0], 0.9),
        # mean 2.5, variance 1.25
        ([1.0, 2.0, 3.0, 4.0], 1 + 0.1 * 1.5 / math.sqrt(1.25)),
        # quartiles 2 and 4: 9 is more than 1.5 * 2 above, so that the statistics are those of the others
        ([1.0, 2.0, 3.0, 4.0, 9.0], 1 + 0.1 * 1.5 / math.sqrt(1.25)),
        # 7 is exactly that much above
        ([1.0, 2.0, 3.0, 4.0, 7.0], 1 + 0.1 * 2.4 / math.sqrt(4.24)),
        # an outlier has a weight too, here at the limit: z = 6.5 / 1.118
        ([9.0, 1.0, 2.0, 3.0, 4.0], 0.8),
        # no deviation counts as one of 1, for an outlier too
        ([2.0, 2.0, 2.0, 2.0], 1.0),
        ([3.0, 2.0, 2.0, 2.0, 2.0], 0.9),
        # a completion without a trained token has no perplexity
        ([1.0, 3.0, math.nan], 1.1),
    ],
)
def test_weights_of_a_group_by_hand(log_perplexities, expected):
    assert in_group([log_perplexities]) == pytest.approx([expected], abs=1e-5)


def test_every_group_has_statistics_of_its_own():
    # the second prompt is one of which the policy is unsure, and its first completion the surest
    assert in_group([[1.0, 3.0], [11.0, 13.0]]) == pytest.approx([1.1, 1.1], abs=1e-5)


def test_group_without_a_trained_token_is_no_error():
    given = replace(tokens([[0.5]], mask=[[0]]), group_logps=torch.full((1, 3), math.nan))
    assert Perplexity(alpha=1.0)(given).isfinite().all()


def test_another_scope_is_refused():
    with pytest.raises(ValueError, match="scope must be 'group' or 'step', got 'batch'"):
        Perplexity(scope="batch")


# Over the step


def test_weights_by_hand():
    near(of_rows(Perplexity(scope="step", alpha=0.1), TWO), [1.1, 0.9])
    near(of_rows(Perplexity(scope="step", alpha=-0.1), TWO), [0.9, 1.1])


def test_weights_are_limited():
    # 1.5 and 0.5 before the limit of 0.2
    near(of_rows(Perplexity(scope="step", alpha=0.5), TWO), [1.2, 0.8])
    near(of_rows(Perplexity(scope="step", alpha=0.5, limit=1.0), TWO), [1.5, 0.5])
    near(of_rows(Perplexity(scope="step", alpha=1.0, limit=1.0), TWO), [2.0, 0.0])


def test_limit_of_zero_is_neutral():
    assert Perplexity(scope="step", limit=0.0).neutral
    assert Perplexity(scope="step", alpha=1.0, limit=0.0)(TWO).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_deviation_is_that_of_the_population():
    # log-perplexities 0, 0 and 3 log 2: mean log 2, variance 2 log^2 2, z = -1 / sqrt(2) twice and sqrt(2)
    given = tokens([[1.0], [1.0], [0.125]])
    near(of_rows(Perplexity(scope="step", alpha=0.1), given), [1 + 0.1 / math.sqrt(2)] * 2 + [1 - 0.1 * math.sqrt(2)])


def test_mean_and_deviation_are_over_the_pool():
    first, second = (tokens([row]) for row in ([0.5, 0.5], [0.125, 0.125]))
    pool = Pool([first, second])
    near(of_rows(Perplexity(scope="step", alpha=0.1), replace(first, pool=pool)), [1.1])
    near(of_rows(Perplexity(scope="step", alpha=0.1), replace(second, pool=pool)), [0.9])


def test_completion_without_a_trained_token_does_not_count():
    given = tokens([[0.5], [0.125], [0.001]], mask=[[1], [1], [0]])
    near(of_rows(Perplexity(scope="step", alpha=0.1), given)[:2], [1.1, 0.9])
    assert Perplexity(scope="step", alpha=0.1)(given).isfinite().all()


def test_no_trained_token_is_no_error():
    assert Perplexity(scope="step")(tokens([[0.5, 0.5]], mask=[[0, 0]])).isfinite().all()


def test_equal_perplexities_have_weight_one():
    assert Perplexity(scope="step", alpha=1.0)(tokens([[0.3, 0.6]])).tolist() == [[1.0, 1.0]]
    assert Perplexity(scope="step", alpha=1.0)(tokens([[0.3, 0.6], [0.3, 0.6]])).tolist() == [[1.0, 1.0], [1.0, 1.0]]


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
    assert Perplexity().needs == {"group_logps"}
    assert Perplexity(scope="step").needs == {"pool"}
