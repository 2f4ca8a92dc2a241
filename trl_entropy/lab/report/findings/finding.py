"""One thing that can be said about runs, and the same of several seeds as one."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..runs import Run
from ..statistics import WINDOW


BAD, NOTE, GOOD = SEVERITIES = ("bad", "note", "good")  # the gravest first
MIN_LOGS = 3 * WINDOW  # logged steps, ours; from fewer nothing is concluded
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


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


def merged(found: Sequence[Finding], runs: int) -> list[Finding]:
    """
    The findings of the runs of an arm, the gravest first; those that differ in numbers alone are one.

    Numbers that differ become ranges, `step 104 to 121`, and the text says how many runs it is about.
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
    """One text for texts that differ in numbers alone."""
    columns = iter(zip(*(NUMBER.findall(text) for text in texts), strict=True))
    return NUMBER.sub(lambda _: _range(next(columns)), texts[0])


def _range(numbers: tuple[str, ...]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"
