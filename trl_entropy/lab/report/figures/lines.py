"""Figures of metrics over steps: for all arms, or for the parts of a single run."""

from collections.abc import Callable, Iterable, Mapping

from matplotlib.figure import Figure

from ..control import turned_knobs
from ..statistics import Arm
from .style import (
    COLORS,
    DASHED,
    HEIGHT,
    NEGATIVE,
    POSITIVE,
    STYLE,
    Look,
    fit,
    legend,
    look_of,
    panels,
    plain,
    plot_arm,
    plot_series,
)


MOST_KNOBS, MOST_SCORES = 6, 4  # in one figure
Parts = Mapping[str, tuple[str, Look]]  # metric and look by name of the part


def single(arms: list[Arm]) -> bool:
    """Whether there is only one run."""
    return len(arms) == len(arms[0].runs) == 1


@STYLE
def reward(arms: list[Arm]) -> Figure | None:
    """Mean reward over the run."""
    return _of_arms(arms, "Reward", ["reward"], "mean reward")


@STYLE
def groups(arms: list[Arm]) -> Figure | None:
    """Share of groups whose rewards are all equal; for a single run also the all-correct and all-wrong shares."""
    title, unit, key = "Groups that teach nothing", "share of groups", "frac_reward_zero_std"
    if not single(arms):
        return _of_arms(arms, title, [key], unit)
    parts = {"all equal": (key, look_of(0))}
    parts |= {"all correct": ("groups/all_correct", POSITIVE), "all wrong": ("groups/all_wrong", NEGATIVE)}
    return _of_run(arms, title, parts, unit, raw=True)


@STYLE
def clipping(arms: list[Arm]) -> Figure | None:
    """Share of tokens outside the clip range; for a single run at each end."""
    title, unit = "Clipped tokens", "share of tokens"
    parts = {
        "below the range": ("clip_ratio/low_mean", NEGATIVE),
        "above the range": ("clip_ratio/high_mean", POSITIVE),
    }
    series = [run.series[key] for arm in arms for run in arm.runs for key, _ in parts.values() if key in run.series]
    if not any(any(one.values) for one in series):
        return None
    if not single(arms):
        return _of_arms(arms, title, ["clip_ratio/region_mean"], unit)
    return _of_run(arms, title, parts, unit, raw=True)


@STYLE
def quadrants(arms: list[Arm]) -> Figure | None:
    """Entropy of likely and unlikely tokens by sign of the advantage, in a single run."""
    parts = {
        "likely, positive": ("entropy/likely_positive", POSITIVE),
        "unlikely, positive": ("entropy/unlikely_positive", Look(POSITIVE.color, DASHED)),
        "likely, negative": ("entropy/likely_negative", NEGATIVE),
        "unlikely, negative": ("entropy/unlikely_negative", Look(NEGATIVE.color, DASHED)),
    }
    return _of_run(arms, "Entropy of likely and unlikely tokens", parts, "nats per token")


@STYLE
def answers(arms: list[Arm]) -> Figure | None:
    """Entropy in correct and in incorrect answers, in a single run."""
    parts = {
        "correct": ("entropy/correct", Look(COLORS[0])),
        "incorrect": ("entropy/incorrect", Look(COLORS[4], DASHED)),
    }
    return _of_run(arms, "Entropy in right and wrong answers", parts, "nats per token")


@STYLE
def knobs(arms: list[Arm]) -> Figure | None:
    """The values of the knobs that moved or that a controller had, one panel per knob."""
    keys = _keys(f"knobs/{name}" for arm in arms for run in arm.runs for name in turned_knobs(run))[:MOST_KNOBS]

    def turned(arm: Arm, key: str) -> bool:
        return all(key.removeprefix("knobs/") in turned_knobs(run) for run in arm.runs)

    height = 1.25 + 1.25 * len(keys)
    return _of_arms(arms, "Knobs in force", keys, height=height, longest=48, zero=False, shown=turned)


@STYLE
def evaluation(arms: list[Arm]) -> Figure | None:
    """Scores that the evaluation logged during training; without pass@k, its reward."""
    keys = _keys(key for arm in arms for run in arm.runs for key in run.series if key.startswith("eval_"))
    keys = ([key for key in keys if "@" in key] or [key for key in keys if key == "eval_reward"])[:MOST_SCORES]
    return _of_arms(arms, "Evaluation during training", keys, height=1.2 + 1.4 * len(keys), longest=34)


def _keys(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _of_arms(
    arms: list[Arm],
    title: str,
    keys: list[str],
    unit: str = "",
    height: float = HEIGHT,
    longest: int = 0,
    zero: bool = True,
    shown: Callable[[Arm, str], bool] = lambda arm, key: True,
) -> Figure | None:
    """A panel per metric, named if `longest` characters have room; `None` if there is nothing to plot."""
    if not keys:
        return None
    figure, rows = panels(title, len(keys), height, sharex=True)
    plotted: dict[str, Look] = {}
    for axes, key in zip(rows, keys, strict=True):
        for index, arm in enumerate(arms):
            if shown(arm, key) and plot_arm(axes, arm, key, look_of(index)):
                plotted[arm.name] = look_of(index)
        if longest:
            axes.set_title(plain(key.removeprefix("knobs/").removeprefix("eval_"), longest))
        fit(axes, zero)
    rows[0].set_ylabel(unit)
    rows[-1].set_xlabel("optimizer step")
    legend(figure, plotted)
    return figure if plotted else None


def _of_run(arms: list[Arm], title: str, parts: Parts, unit: str, raw: bool = False) -> Figure | None:
    """The parts that a single run logged."""
    series = arms[0].runs[0].series
    known = {name: (series[key], look) for name, (key, look) in parts.items() if key in series}
    if not known or not single(arms):
        return None
    figure, (axes,) = panels(title)
    for values, look in known.values():
        plot_series(axes, values, look, raw)
    axes.set(xlabel="optimizer step", ylabel=unit)
    fit(axes)
    legend(figure, {name: look for name, (_, look) in known.items()})
    return figure
