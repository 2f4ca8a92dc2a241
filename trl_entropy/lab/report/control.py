"""Find what the controllers of a run held, and how well."""

import math
import re
from typing import NamedTuple

from .runs import Run, Series
from .statistics import WINDOW, finite


BAND = 0.1  # ours: a signal has settled within this share of its target


class Held(NamedTuple):
    """
    The target of one controller and how well it held it.

    Args:
        name (`str`):
            Its name in the config.
        knob (`str`, *optional*):
            The knob that it turned; `None` if the run has not saved its settings.
        signal (`str`):
            The signal that it read.
        target (`float`):
            The last target.
        error (`float`, *optional*):
            The distance of the last half's mean from the target, as a share of the target; `None` if unknown.
        settled (`int`, *optional*):
            The optimizer step from which it was within [`BAND`] of its target to the end, for [`~statistics.WINDOW`]
            logged steps or more; `None` if never.
        band (`tuple[float, float]`, *optional*):
            The target band, if the target was not a point.
    """

    name: str
    knob: str | None
    signal: str
    target: float
    error: float | None
    settled: int | None
    band: tuple[float, float] | None = None


def held(run: Run) -> list[Held]:
    """The controllers of a run that have a target."""
    found = [re.fullmatch("controllers/(.*)/target", key) for key in run.series]
    return [_held(run, match[1]) for match in found if match is not None]


def _held(run: Run, name: str) -> Held:
    spec = (run.settings.get("controllers") or {}).get(name, {})
    signal, target = spec.get("signal", "entropy"), run.series[f"controllers/{name}/target"]
    steps, values, aims = common(run.series.get(signal), target)
    if not steps or not all(aim > 0 for aim in aims):
        return Held(name, spec.get("knob"), signal, target.values[-1], None, None, _band(run, name, spec))
    from ...measures import settling  # loads torch

    found = settling(values, aims, band=BAND)
    stayed = found.time is not None and len(steps) - found.time >= WINDOW
    settled = steps[found.time - 1] if stayed else None
    return Held(name, spec.get("knob"), signal, target.values[-1], found.error, settled, _band(run, name, spec))


def _band(run: Run, name: str, spec: dict) -> tuple[float, float] | None:
    start = finite(run.series.get(f"controllers/{name}/start")).values[-1:]
    for bounds, scale in ((spec.get("target"), [1.0]), (spec.get("target_ratio"), start)):
        if isinstance(bounds, list) and scale:
            return bounds[0] * scale[0], bounds[1] * scale[0]
    return None


def common(first: Series | None, second: Series | None) -> tuple[list[int], list[float], list[float]]:
    """The steps at which both metrics were logged, and the values of each."""
    one, two = (dict(zip(*(series or ((), ())), strict=True)) for series in (first, second))
    steps = [step for step in one if step in two]
    return steps, [one[step] for step in steps], [two[step] for step in steps]


def turned_knobs(run: Run) -> dict[str, Series]:
    """The knobs that moved, or that a controller had, by name."""
    controlled = {spec.get("knob") for spec in (run.settings.get("controllers") or {}).values()}
    knobs = {key.removeprefix("knobs/"): values for key, values in run.series.items() if key.startswith("knobs/")}
    return {
        name: series
        for name, series in knobs.items()
        if name in controlled or not math.isclose(min(series.values), max(series.values), abs_tol=1e-12)
    }
