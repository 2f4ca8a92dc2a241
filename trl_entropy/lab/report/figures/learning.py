"""Figures of what was learnt, and of what kept tokens and groups from teaching."""

from matplotlib.figure import Figure

from ..runs import Run
from ..statistics import Arm
from .style import NEGATIVE, POSITIVE, STYLE, Look, draw_arm, draw_series, fit, legend, look_of, panels


@STYLE
def reward(arms: list[Arm]) -> Figure | None:
    """Mean reward over the run."""
    return _of_arms(arms, "reward", "Reward", "mean reward")


@STYLE
def groups(arms: list[Arm]) -> Figure | None:
    """Share of groups whose rewards are all equal; for a single run also which are all correct and all wrong."""
    title, unit, key = "Groups that teach nothing", "share of groups", "frac_reward_zero_std"
    if len(arms) > 1 or len(arms[0].runs) > 1:
        return _of_arms(arms, key, title, unit)
    parts = {"all equal": (key, look_of(0))}
    parts |= {"all correct": ("groups/all_correct", POSITIVE), "all wrong": ("groups/all_wrong", NEGATIVE)}
    return _of_run(arms[0].runs[0], parts, title, unit)


@STYLE
def clipping(arms: list[Arm]) -> Figure | None:
    """Share of tokens outside of the clip range; for a single run at each end of it."""
    title, unit = "Clipped tokens", "share of tokens"
    sides = {
        "below the range": ("clip_ratio/low_mean", NEGATIVE),
        "above the range": ("clip_ratio/high_mean", POSITIVE),
    }
    logged = [
        run.series[key].values for arm in arms for run in arm.runs for key, _ in sides.values() if key in run.series
    ]
    if not any(map(any, logged)):
        return None
    if len(arms) > 1 or len(arms[0].runs) > 1:
        return _of_arms(arms, "clip_ratio/region_mean", title, unit)
    return _of_run(arms[0].runs[0], sides, title, unit)


def _of_run(run: Run, parts: dict[str, tuple[str, Look]], title: str, unit: str) -> Figure | None:
    figure, (axes,) = panels(title)
    known = {name: (run.series[key], look) for name, (key, look) in parts.items() if key in run.series}
    for series, look in known.values():
        draw_series(axes, series, look)
    return _finished(figure, {name: look for name, (_, look) in known.items()}, unit)


def _of_arms(arms: list[Arm], key: str, title: str, unit: str) -> Figure | None:
    figure, (axes,) = panels(title)
    looks = {index: look_of(index) for index, arm in enumerate(arms) if draw_arm(axes, arm, key, look_of(index))}
    return _finished(figure, {arms[index].name: look for index, look in looks.items()}, unit)


def _finished(figure: Figure, drawn: dict[str, Look], unit: str) -> Figure | None:
    if not drawn:
        return None
    (axes,) = figure.axes
    axes.set(xlabel="optimizer step", ylabel=unit)
    fit(axes)
    legend(figure, drawn)
    return figure
