"""Two models on the same problems: differences, intervals and a sign test."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .bootstrap import Mean, Statistic, draws, interval, once
from .metrics import metrics
from .samples import Samples


class Difference(NamedTuple):
    """
    A metric of the second samples less that of the first.

    Args:
        value (`float`):
            The difference.
        low, high (`float`):
            Its 95% interval, by a bootstrap over problems; NaN for a single problem.
        wins, losses (`int` or `None`):
            Problems on which the second has more, or less; `None` for a metric that no single problem has.
        p_value (`float`):
            Of the two-sided sign test on these; NaN without them.
    """

    value: float
    low: float
    high: float
    wins: int | None
    losses: int | None
    p_value: float


def paired_differences(
    first: Samples, second: Samples, ks: Sequence[int] | None = None, seed: int = 0, resamples: int = 1000
) -> dict[str, Difference]:
    """
    Every metric of `second` less that of `first`, by name. Row i of both must be the same problem.

    A draw of the bootstrap takes the same problems from both, so what makes a problem hard for both cancels.

    Raises `ValueError` for different numbers of problems or samples, and as `scores` does.
    """
    if first.correct.shape != second.correct.shape:
        raise ValueError(
            f"give the same problems with the same number of samples; got (problems, samples) = {first.correct.shape} "
            f"and {second.correct.shape}"
        )
    num_problems = len(first.correct)
    drawn = draws(num_problems, resamples, seed)
    before, after = metrics(first, ks), metrics(second, ks)
    differences = {}
    for name in before:
        value = float((after[name](once(num_problems)) - before[name](once(num_problems)))[0])
        spread = after[name](drawn) - before[name](drawn)
        low, high = interval(spread) if num_problems > 1 else (np.nan, np.nan)
        differences[name] = Difference(value, low, high, *_signs(before[name], after[name]))
    return differences


def _signs(before: Statistic, after: Statistic) -> tuple[int | None, int | None, float]:
    if not isinstance(before, Mean):
        return None, None, np.nan
    gains = after.values - before.values
    # sums of the same numbers in another order differ in the last digits
    even = np.isclose(after.values, before.values, rtol=1e-9, atol=1e-12)
    wins, losses = int((gains[~even] > 0).sum()), int((gains[~even] < 0).sum())
    return wins, losses, sign_test(wins, losses)


def sign_test(wins: int, losses: int) -> float:
    r"""
    Two-sided p-value of the exact sign test, ties left out; 1 if there is neither a win nor a loss.

    $$
    \min \left( 1, \; 2^{1-n} \sum_{i \le \min(\text{wins}, \text{losses})} \binom{n}{i} \right), \quad
    n = \text{wins} + \text{losses}
    $$
    """
    number = wins + losses
    tail = sum(math.comb(number, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**number)
