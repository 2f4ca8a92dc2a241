"""Group runs that only differ in the seed into arms, and average logged values over steps and seeds."""

import json
import math
import os
import re
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from ..statistics import half_interval
from .runs import Run, Series


WINDOW = 10  # number of logged steps that the table's first and last values average over
ENDS = f"means of the first and the last {WINDOW} logged steps (with fewer than {2 * WINDOW}: of each half)"
# Settings in which the seeds of one arm may differ
PER_RUN = ("data_seed", "hub_model_id", "logging_dir", "output_dir", "resume_from_checkpoint", "run_name", "seed")


def ends(values: list[float]) -> tuple[float | None, float]:
    """Means of the first and last `WINDOW` values, or of both halves of fewer; for one value only the last mean."""
    window = min(WINDOW, len(values) // 2)
    if window == 0:
        return None, values[-1]
    return sum(values[:window]) / window, sum(values[-window:]) / window


def smooth(values: list[float]) -> list[float]:
    """The mean of the last `WINDOW` values up to each step."""
    return [sum(values[max(0, i + 1 - WINDOW) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]


class Arm(NamedTuple):
    """Runs that only differ in the seed, under one name."""

    name: str
    runs: list[Run]


class Estimate(NamedTuple):
    """A mean over seeds and half its 95% interval, which is `None` for a single seed."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.half is None else f"{self.mean:.2f} ± {self.half:.2f}"


def arms(runs: Sequence[Run]) -> list[Arm]:
    """
    Group runs into arms, in the order of each arm's first run.

    Runs with settings form an arm if only the seed and folder names differ. Runs without settings do if their folders
    have the same name in folders that differ in a number (`seed1/grpo`, `seed2/grpo`).
    """
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    names = [_name(group) for group in groups.values()]
    if len(set(names)) < len(names):
        names = [group[0].name for group in groups.values()]
    return [Arm(name, group) for name, group in zip(names, groups.values(), strict=True)]


def _identity(run: Run) -> object:
    if run.settings:
        return json.dumps({key: value for key, value in run.settings.items() if key not in PER_RUN}, sort_keys=True)
    folder = run.path.resolve()
    numbered = re.search(r"\d", folder.parent.name)
    return (folder.name, re.sub(r"\d+", "", folder.parent.name)) if numbered else folder


def _name(group: list[Run]) -> str:
    if len(group) == 1:
        return group[0].name
    folders = [run.path.resolve().name for run in group]
    if len(set(folders)) == 1:
        return folders[0]
    return os.path.commonprefix(folders).rstrip("-_.0123456789") or group[0].name


def seed_of(run: Run) -> object:
    """The seed of a run in an arm: the setting, or the parent folder."""
    return run.settings.get("seed", run.path.resolve().parent.name)


def estimate(values: Sequence[float]) -> Estimate:
    """
    Mean and half of Student's 95% interval.

    Raises `ValueError` if there are no values.
    """
    if not values:
        raise ValueError("give at least one value")
    known = len(values) > 1 and all(map(math.isfinite, values))
    return Estimate(fmean(values), half_interval(values) if known else None)


class Band(NamedTuple):
    """A smoothed metric of an arm: means over its seeds, and half the 95% interval if there are several."""

    steps: list[int]
    means: list[float]
    halves: list[float] | None


def band(arm: Arm, key: str) -> Band | None:
    """The smoothed metric at the steps that all runs of an arm logged; `None` if a run did not log it."""
    logged = [run.series[key] for run in arm.runs if key in run.series]
    if len(logged) < len(arm.runs):
        return None
    smoothed = [dict(zip(series.steps, smooth(series.values), strict=True)) for series in logged]
    steps = sorted(set.intersection(*map(set, smoothed)))
    if not steps:
        return None
    estimates = [estimate([values[step] for values in smoothed]) for step in steps]
    means = [point.mean for point in estimates]
    if len(arm.runs) == 1:
        return Band(steps, means, None)
    return Band(steps, means, [0.0 if point.half is None else point.half for point in estimates])


def finite(series: Series | None) -> Series:
    """A metric's finite values; empty if there are none."""
    pairs = [] if series is None else [pair for pair in zip(*series, strict=True) if math.isfinite(pair[1])]
    return Series([step for step, _ in pairs], [value for _, value in pairs])
