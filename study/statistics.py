"""Effects with their intervals, and what they say about a claim."""

import math
import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from scipy.stats import ConstantInputWarning, false_discovery_control, spearmanr, ttest_1samp

from trl_entropy.lab.statistics import LEVEL, half_interval


REPRODUCED, NOT_REPRODUCED, REVERSED = "reproduced", "not reproduced here", "reversed here"


class Effect(NamedTuple):
    """The mean over seeds with its 95 % interval by Student's t; an infinite one for a single seed."""

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, form: str) -> str:
        form = form or "+.2f"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


def effect(values: Sequence[float]) -> Effect:
    """Raises `ValueError` without values."""
    if not values:
        raise ValueError("an effect needs the values of one seed at least")
    mean, half = fmean(values), half_interval(values)
    return Effect(mean, mean - half, mean + half, len(values))


def p_value(values: Sequence[float]) -> float:
    """Of a mean of 0, by the two-sided t test that the interval of [`effect`] goes with; 1 for a single seed."""
    if len(values) == 1 or fmean(values) == 0:
        return 1.0
    return float(ttest_1samp(values, 0).pvalue) if len(set(values)) > 1 else 0.0


def kept_together(p_values: Sequence[float]) -> list[bool]:
    """
    Which effects stand if the share of false ones among those that stand is to be at most 5 %.

    Reference: Controlling the false discovery rate (https://doi.org/10.1111/j.2517-6161.1995.tb02031.x)
    """
    return [bool(p <= 1 - LEVEL) for p in false_discovery_control(p_values)]


def verdict(found: Effect, sign: int, margin: float | None = None) -> str:
    """
    What an effect says about a claim.

    Args:
        found ([`Effect`]):
            The effect.
        sign (`int`):
            1 if it is claimed to be above 0, -1 if below; 0 if nothing is claimed to change.
        margin (`float`, *optional*):
            With `sign=0`: how far from 0 the whole interval may reach.
    """
    if sign == 0:
        return REPRODUCED if max(abs(found.low), abs(found.high)) <= margin else NOT_REPRODUCED
    if sign * found.low > 0 and sign * found.high > 0:
        return REPRODUCED
    if sign * found.low < 0 and sign * found.high < 0:
        return REVERSED
    return NOT_REPRODUCED


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's; `None` if one of the two does not vary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = float(spearmanr(x, y).statistic)
    return None if math.isnan(found) else found
