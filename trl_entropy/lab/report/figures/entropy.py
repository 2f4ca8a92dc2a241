"""Figures of the entropy, of the origin of its changes, and along the completion."""

import math
from itertools import accumulate
from statistics import correlation, fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..control import BAND, common, held
from ..runs import Run, Series
from ..statistics import Arm, finite
from .lines import single
from .style import (
    DASHED,
    DOTTED,
    INK,
    MUTED,
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
    thin,
)


DECILES = {place: f"entropy/decile_{place}" for place in range(1, 11)}
MOST_DOTS = 400  # per arm
SIGNS = {"positive": POSITIVE, "negative": NEGATIVE}


@STYLE
def entropy(arms: list[Arm]) -> Figure | None:
    """Entropy over the run, with its target and, for a single run, split by the sign of the advantage."""
    figure, (axes,) = panels("Entropy of the policy")
    plotted = {arm.name: look for arm, look in _looks(arms) if plot_arm(axes, arm, "entropy", look)}
    if not plotted:
        return None
    if single(arms):
        plotted = {"all tokens": plotted[arms[0].name]}
        for sign, look in SIGNS.items():
            if (series := arms[0].runs[0].series.get(f"entropy/{sign}_advantage")) is not None:
                plot_series(axes, series, look, raw=False)
                plotted[f"{sign} advantage"] = look
    for arm, look in _looks(arms):
        color = look.color if len(arms) > 1 else INK
        for aim in (aim for aim in held(arm.runs[0]) if aim.signal == "entropy"):
            target = thin(arm.runs[0].series[f"controllers/{aim.name}/target"])
            plotted |= _plot_target(axes, target, aim.band, color)
    axes.set(xlabel="optimizer step", ylabel="nats per token")
    fit(axes)
    legend(figure, plotted)
    return figure


def _looks(arms: list[Arm]) -> list[tuple[Arm, Look]]:
    return [(arm, look_of(index)) for index, arm in enumerate(arms)]


def _plot_target(axes: Axes, target: Series, bounds: tuple[float, float] | None, color: str) -> dict[str, Look]:
    """Draw a target band, or a target and the range that counts as settled."""
    if bounds is not None:
        axes.axhspan(*bounds, color=color, alpha=0.1, linewidth=0)
        return {"target band (shaded)": Look(INK, "")}
    low, high = ([(1 + sign * BAND) * aim for aim in target.values] for sign in (-1, 1))
    axes.plot(*target, color=color, linestyle=DASHED, linewidth=1)
    axes.fill_between(target.steps, low, high, color=color, alpha=0.08, linewidth=0)
    return {f"target ± {BAND:.0%}": Look(INK, DASHED)}


@STYLE
def sources(arms: list[Arm]) -> Figure | None:
    """Predicted changes by sign: cumulative over a single run, as shares for several arms."""
    known = [(arm, shares) for arm in arms if (shares := [_shares(run) for run in arm.runs]) and None not in shares]
    if not known:
        return None
    if single(arms):
        return _sums(arms[0].runs[0])
    figure, (axes,) = panels("Where the predicted change comes from", height=1.3 + 0.42 * len(known))
    for place, (_, shares) in enumerate(known):
        for offset, (sign, look) in zip((-0.2, 0.2), SIGNS.items(), strict=True):
            axes.barh(place + offset, fmean(of_run[sign] for of_run in shares), 0.36, color=look.color)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(known)), [plain(arm.name, 20) for arm, _ in known])
    axes.set(xlabel="share of the predicted change; below 0 it falls", ylim=(len(known) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    legend(figure, {f"{sign} advantage": look for sign, look in SIGNS.items()})
    return figure


def _shares(run: Run) -> dict[str, float] | None:
    none = Series([], [])
    totals = {sign: sum(run.series.get(f"entropy_change/predicted_{sign}", none).values) for sign in SIGNS}
    size = sum(map(abs, totals.values()))
    return {sign: total / size for sign, total in totals.items()} if size else None


def _sums(run: Run) -> Figure:
    figure, (axes,) = panels("Where the predicted change comes from")
    plotted = {"all tokens": ("predicted", look_of(0))}
    plotted |= {f"{sign} advantage": (f"predicted_{sign}", look) for sign, look in SIGNS.items()}
    for key, look in plotted.values():
        series = run.series.get(f"entropy_change/{key}", Series([], []))
        axes.plot(*thin(Series(series.steps, list(accumulate(series.values)))), color=look.color)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set(xlabel="optimizer step", ylabel="sum (nats)")
    legend(figure, {name: look for name, (_, look) in plotted.items()})
    return figure


@STYLE
def prediction(arms: list[Arm]) -> Figure | None:
    """Observed against predicted changes of entropy, one dot per step, with their correlation."""
    figure, (axes,) = panels("Predicted and observed change, step by step")
    plotted = {}
    for arm, look in _looks(arms):
        keys = ("entropy_change/predicted", "entropy_change/observed")
        known = [common(*(finite(run.series.get(key)) for key in keys))[1:] for run in arm.runs]
        pairs = [pair for values in known for pair in zip(*values, strict=True)]
        if len(pairs) < 2:
            continue
        axes.scatter(*zip(*pairs[:: -(-len(pairs) // MOST_DOTS)], strict=True), s=6, color=look.color, alpha=0.5, lw=0)
        plotted[f"{arm.name}: correlation {_correlation(pairs)}"] = look
    if not plotted:
        return None
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set(xlabel="predicted (nats per unit step)", ylabel="observed (nats)")
    legend(figure, plotted, alone=True)
    return figure


def _correlation(pairs: list[tuple[float, float]]) -> str:
    predicted, observed = zip(*pairs, strict=True)
    return f"{correlation(predicted, observed):.2f}" if stdev(predicted) and stdev(observed) else "–"


@STYLE
def deciles(arms: list[Arm]) -> Figure | None:
    """Entropy along the completion, in the first and in the last quarter of the run."""
    figure, (axes,) = panels("Entropy along the completion")
    plotted = {}
    for arm, look in _looks(arms):
        # Short completions leave some tenths empty
        places = [place for place, key in DECILES.items() if all(key in run.series for run in arm.runs)]
        if places:
            plotted[arm.name] = look
            for quarter, dashes in ((0, DOTTED), (3, "-")):
                profile = [fmean(_quarter(run, DECILES[place], quarter) for run in arm.runs) for place in places]
                axes.plot(places, profile, color=look.color, linestyle=dashes, marker="o", markersize=2.5)
    if not plotted:
        return None
    axes.set(xlabel="tenth of the completion", ylabel="nats per token", xticks=range(1, 11))
    fit(axes)
    quarters = {"first quarter": Look(INK, DOTTED), "last quarter": Look(INK)}
    if len(arms) == 1:
        plotted, quarters = {}, {name: Look(look_of(0).color, look.dashes) for name, look in quarters.items()}
    legend(figure, plotted | quarters)
    return figure


def _quarter(run: Run, key: str, quarter: int) -> float:
    """The mean in a quarter of the run. A single value counts as the last quarter; the first is then NaN."""
    values = run.series[key].values
    if quarter == 0 and len(values) == 1:
        return math.nan
    return fmean(values[len(values) * quarter // 4 : max(1, len(values) * (quarter + 1) // 4)])
