"""A finding on runs, and merging the same finding of several seeds."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..runs import Run
from ..statistics import WINDOW


BAD, NOTE, GOOD = SEVERITIES = ("bad", "note", "good")  # the most severe first
MIN_LOGS = 3 * WINDOW  # logged steps, ours; fewer allow no conclusion
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Finding(NamedTuple):
    """What happened, the numbers that show it, how severe it is, and what to consider."""

    text: str
    evidence: str
    severity: str
    advice: str = ""


def enough(run: Run, key: str, least: int = MIN_LOGS) -> list[float]:
    """A metric's values; empty if there are fewer than `least`, or if one is not finite."""
    values = run.series[key].values if key in run.series else []
    return values if len(values) >= least and all(map(math.isfinite, values)) else []


def merged(found: Sequence[Finding], runs: int) -> list[Finding]:
    """
    Merge the findings on the runs of an arm that only differ in numbers; the most severe come first.

    Different numbers become ranges, `step 104 to 121`, and the text says how many runs it is about.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in found:
        groups.setdefault(NUMBER.sub("#", finding.text), []).append(finding)
    findings = [_one(group, runs) for group in groups.values()]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _one(group: list[Finding], runs: int) -> Finding:
    text = _ranges([finding.text for finding in group])
    shapes = {NUMBER.sub("#", finding.evidence) for finding in group}
    evidence = [finding.evidence for finding in group]
    return Finding(
        text if runs == 1 else f"{text} ({len(group)} of {runs} runs)",
        _ranges(evidence) if len(shapes) == 1 else "; ".join(evidence),
        min((finding.severity for finding in group), key=SEVERITIES.index),
        next((finding.advice for finding in group if finding.advice), ""),
    )


def _ranges(texts: list[str]) -> str:
    """One text for texts that only differ in numbers."""
    columns = iter(zip(*(NUMBER.findall(text) for text in texts), strict=True))
    return NUMBER.sub(lambda _: _range(next(columns)), texts[0])


def _range(numbers: tuple[str, ...]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"
