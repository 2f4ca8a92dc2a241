"""Compare two evaluations on the same problems: differences, intervals and a sign test."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...rewards.verifier import Verifier
from ..statistics import Mean, Statistic, interval, once, resample
from .folder import RESULTS
from .metrics import Samples, metrics
from .scoring import read_samples


class Difference(NamedTuple):
    """
    A metric of the second samples minus that of the first.

    Args:
        value (`float`):
            The difference.
        low, high (`float`):
            Its 95% interval from a bootstrap over problems; NaN for a single problem.
        wins, losses (`int` or `None`):
            Number of problems on which the second has a larger, or smaller, value; `None` for a metric that is not
            defined per problem.
        p_value (`float`):
            Of the two-sided sign test on wins and losses; NaN without them.
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
    Every metric of `second` minus that of `first`, by name. Row i of both must be the same problem.

    A resample takes the same problems from both, so the difficulty that they share cancels.

    Raises `ValueError` for different numbers of problems or samples, and as [`~metrics.scores`] does.
    """
    if first.correct.shape != second.correct.shape:
        raise ValueError(
            "both need the same problems with the same number of samples; got (problems, samples) = "
            f"{first.correct.shape} and {second.correct.shape}"
        )
    number = len(first.correct)
    resampled, tables = resample(number, resamples, seed), (metrics(first, ks), metrics(second, ks))
    differences = {}
    for name, before in tables[0].items():
        after = tables[1][name]
        value = float((after(once(number)) - before(once(number)))[0])
        low, high = interval(after(resampled) - before(resampled)) if number > 1 else (np.nan, np.nan)
        differences[name] = Difference(value, low, high, *_signs(before, after))
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
    Two-sided p-value of the exact sign test, without ties; 1 if there is neither a win nor a loss.

    $$
    \min \left( 1, \; 2^{1-n} \sum_{i \le \min(\text{wins}, \text{losses})} \binom{n}{i} \right), \quad
    n = \text{wins} + \text{losses}
    $$
    """
    number = wins + losses
    tail = sum(math.comb(number, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**number)


def differences_between(
    first: str, second: str, resamples: int, verifier: Verifier
) -> dict[str, dict[str, Difference]]:
    """
    The metrics of the second minus those of the first, per common set of problems, on the number of samples that both
    have.

    Args:
        first, second (`str`):
            Output folders of `trl-entropy eval`.
        resamples (`int`):
            Resamples of the bootstrap.
        verifier ([`~rewards.Verifier`]):
            Compares answers.

    Raises `ValueError` for a folder without results, or if the problems are not the same.
    """
    before, after = _sets(first), _sets(second)
    names = [name for name in before if name in after]
    if len(before) == len(after) == 1:
        pairs = {next(iter(before)): (*before.values(), *after.values())}
    else:
        pairs = {name: (before[name], after[name]) for name in names}
    if not pairs:
        raise ValueError(
            f"{first!r} has {', '.join(before)}, but {second!r} has {', '.join(after)}: they have no set in common"
        )
    return {name: _differences(name, *pair, resamples, verifier) for name, pair in pairs.items()}


def _differences(name: str, before: Path, after: Path, resamples: int, verifier: Verifier) -> dict[str, Difference]:
    settings = [_read(folder / RESULTS)["settings"] for folder in (before, after)]
    if settings[0]["problems"] != settings[1]["problems"]:
        raise ValueError(f"the problems of {name} are not the same in {str(before)!r} and {str(after)!r}")
    num_samples = min(one["num_samples"] for one in settings)
    samples = [read_samples(folder, num_samples, verifier) for folder in (before, after)]
    return paired_differences(*samples, resamples=resamples)


def _sets(folder: str) -> dict[str, Path]:
    """The folders with results, by name of the set of problems: the folder itself, or those in it."""
    places = [Path(folder) / RESULTS, *sorted(Path(folder).glob(f"*/{RESULTS}"))]
    found = {name: file.parent for file in places if file.is_file() for name in _read(file)["results"]}
    if not found:
        raise ValueError(f"{folder!r} has no {RESULTS} of a finished evaluation")
    return found


def _read(file: Path) -> dict:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not {"results", "settings"} <= content.keys():
        raise ValueError(f"{str(file)!r} was not written by this version of trl-entropy eval: run it again")
    return content
