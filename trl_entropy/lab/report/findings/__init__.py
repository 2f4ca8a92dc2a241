"""Findings on what happened to runs and why, with their evidence."""

from collections.abc import Sequence

from ..runs import Run
from ..statistics import Arm
from .arms import compared
from .authority import authority
from .controllers import control, limits
from .entropy import collapse, explosion, prediction, sources
from .finding import Finding, merged
from .learning import clipping, dead, groups, held_out, not_finite, reward


CHECKS = (
    dead,
    not_finite,
    collapse,
    explosion,
    control,
    limits,
    authority,
    held_out,
    reward,
    sources,
    groups,
    clipping,
    prediction,
)


def findings(arm: Arm) -> list[Finding]:
    """The findings on the runs of an arm, the most severe first, otherwise in the order of the checks."""
    return merged([finding for check in CHECKS for run in arm.runs for finding in check(run)], len(arm.runs))


def of_run(run: Run) -> list[Finding]:
    """The findings on one run, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(run)]


def findings_between(arms: Sequence[Arm]) -> list[Finding]:
    """The findings on differences between arms; none for a single arm."""
    return compared(arms)


__all__ = ["Finding", "findings", "findings_between", "of_run"]
