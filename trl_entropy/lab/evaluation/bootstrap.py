"""Standard errors and intervals: problems are drawn anew, with replacement."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


# Takes `(R, P)` weights of problems, gives `(R,)` values
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Mean:
    """
    The mean over problems of a value that each of them has; NaN if none has.

    Args:
        values (`numpy.ndarray`):
            `(P,)`: NaN where a problem has no value, and is left out.
    """

    values: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """
        The weighted mean, `(R,)`.

        Args:
            weights (`numpy.ndarray`):
                `(R, P)`: how often each problem counts.
        """
        known = ~np.isnan(self.values)
        return ratio(weights @ np.where(known, self.values, 0.0), weights @ known.astype(float))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    missing = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=missing, where=np.asarray(denominator) != 0)


def once(num_problems: int) -> np.ndarray:
    """The weights `(1, P)` of the problems as they are."""
    return np.ones((1, num_problems))


def draws(num_problems: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """
    How often each problem is drawn when as many are drawn as there are, with replacement: `(resamples, P)`.

    Raises `ValueError` for fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    uniform = np.full(num_problems, 1 / num_problems)
    return np.random.default_rng(seed).multinomial(num_problems, uniform, size=resamples).astype(float)


def standard_error(values: np.ndarray) -> float:
    """
    Standard deviation of a statistic over the draws; those without a value are left out. NaN if fewer than 2 have one.

    Args:
        values (`numpy.ndarray`):
            `(R,)`.

    Reference: Efron, [Bootstrap Methods: Another Look at the Jackknife](https://doi.org/10.1214/aos/1176344552), 1979.
    """
    values = values[~np.isnan(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def interval(values: np.ndarray) -> tuple[float, float]:
    """
    The 2.5% and 97.5% quantiles of a statistic over the draws; those without a value are left out.

    Args:
        values (`numpy.ndarray`):
            `(R,)`.
    """
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
