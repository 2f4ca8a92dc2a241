"""One thing that can be said about runs."""

import math
from typing import NamedTuple

from ..runs import Run
from ..series import WINDOW


BAD, NOTE, GOOD = "bad", "note", "good"
MIN_LOGS = 3 * WINDOW  # logged steps, ours; from fewer nothing is concluded


class Finding(NamedTuple):
    """What happened, the numbers that show it, how grave it is, and what to consider."""

    text: str
    evidence: str
    severity: str
    advice: str = ""


def enough(run: Run, key: str, least: int = MIN_LOGS) -> list[float]:
    """A metric's values; none if there are fewer than `least`, or if one is not finite."""
    values = run.series[key].values if key in run.series else []
    return values if len(values) >= least and all(map(math.isfinite, values)) else []
