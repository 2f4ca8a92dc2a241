"""Confidence intervals: Student's over seeds, and a bootstrap over problems."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np


LEVEL = 0.95
# Takes weights of problems `(R, P)`, returns values `(R,)`
Statistic = Callable[[np.ndarray], np.ndarray]


def half_interval(values: Sequence[float]) -> float:
    r"""Half of Student's 95% interval around a mean, \\( t_{0.975, n-1} \, s / \sqrt n \\); infinite for one value."""
    from scipy.special import stdtrit  # loads slowly

    n = len(values)
    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stdev(values) / math.sqrt(n) if n > 1 else math.inf


@dataclass(frozen=True)
class Mean:
    """
    The mean of a value over problems; NaN if no problem has one.

    Args:
        values (`numpy.ndarray`):
            `(P,)`; NaN leaves a problem out.
    """

    values: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The mean, `(R,)`, with weights `(R, P)`: how often each problem counts."""
        known = ~np.isnan(self.values)
        return ratio(weights @ np.where(known, self.values, 0.0), weights @ known.astype(float))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    missing = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=missing, where=np.asarray(denominator) != 0)


def once(number: int) -> np.ndarray:
    """Weights `(1, P)` that count every problem once."""
    return np.ones((1, number))


def resample(number: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """
    Weights `(resamples, P)`: how often each problem is drawn if P problems are drawn with replacement.

    Raises `ValueError` for fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    uniform = np.full(number, 1 / number)
    return np.random.default_rng(seed).multinomial(number, uniform, size=resamples).astype(float)


def standard_error(values: np.ndarray) -> float:
    """
    Standard deviation of a statistic over resamples, `(R,)`, leaving out NaN; NaN if fewer than 2 have a value.

    Reference: Efron, [Bootstrap Methods: Another Look at the Jackknife](https://doi.org/10.1214/aos/1176344552), 1979.
    """
    values = values[~np.isnan(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of a statistic over resamples, `(R,)`; NaN is left out as in [`standard_error`]."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
