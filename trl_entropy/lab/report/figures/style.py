"""The style of a report's figures."""

import math
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..runs import Series
from ..statistics import Arm, band, smooth


# The page replaces these by its own colours for light and dark
INK, MUTED, GRID = "#1f2430", "#5c6470", "#dfe3e8"
# Okabe and Ito's colours, which colour-blind readers can tell apart
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHED, DOTTED = (0, (3, 1.5)), (0, (1, 1))
DASHES = ("-", (0, (4, 1.5)), DOTTED)  # if there are more arms than colours
WIDTH, HEIGHT = 4.0, 2.6  # inches, so that on a phone the figure's text is as large as the page's
MOST_POINTS = 600  # per line, about as many as a screen shows
LONGEST_NAME = 34

STYLE = matplotlib.rc_context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": GRID,
        "axes.grid": True,
        "axes.labelcolor": MUTED,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": MUTED,
        "axes.titlelocation": "left",
        "axes.titlesize": 8.5,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.w_pad": 0.06,
        "figure.titlesize": 10,
        "figure.titleweight": "bold",
        "font.size": 8.5,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "legend.borderaxespad": 0.2,
        "legend.handlelength": 1.8,
        "legend.labelcolor": INK,
        "lines.linewidth": 1.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "trl-entropy",
        "text.color": INK,
        "xtick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.color": MUTED,
        "ytick.major.size": 0,
    }
)


class Look(NamedTuple):
    """How the lines of an arm, or of a part of a run, are plotted."""

    color: str
    dashes: object = "-"


POSITIVE, NEGATIVE = Look(COLORS[2]), Look(COLORS[1])


def look_of(index: int) -> Look:
    """The look of an arm by its number; colours repeat with other dashes."""
    return Look(COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)])


def panels(title: str, rows: int = 1, height: float = HEIGHT, **options) -> tuple[Figure, list[Axes]]:
    """A figure with a title and `rows` panels, one below the other."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.015, ha="left")
    axes = figure.subplots(rows, 1, squeeze=False, **options)[:, 0]
    return figure, list(axes)


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """A name for matplotlib: a dollar does not begin mathematics, and a long name is shortened in the middle."""
    if len(text) > longest:
        text = f"{text[: longest // 2 - 1]}…{text[-(longest // 2) :]}"
    return text.replace("$", r"\$")


def thin(series: Series) -> Series:
    """Every n-th point of a long line."""
    every = -(-len(series.steps) // MOST_POINTS)
    return Series(series.steps[::every], series.values[::every])


def plot_series(axes: Axes, series: Series, look: Look, raw: bool = True) -> None:
    """A smoothed line and, faintly, the logged values."""
    if raw:
        axes.plot(*thin(series), color=look.color, alpha=0.25, linewidth=0.8)
    smoothed = thin(Series(series.steps, smooth(series.values)))
    axes.plot(*smoothed, color=look.color, linestyle=look.dashes)


def plot_arm(axes: Axes, arm: Arm, key: str, look: Look) -> bool:
    """A metric of an arm: its values, or the mean over its seeds with the 95% interval and, faintly, each seed."""
    if len(arm.runs) == 1 and key in arm.runs[0].series:
        plot_series(axes, arm.runs[0].series[key], look)
        return True
    over_seeds = band(arm, key)
    if over_seeds is None:
        return False
    for run in arm.runs:
        series = run.series[key]
        axes.plot(*thin(Series(series.steps, smooth(series.values))), color=look.color, alpha=0.35, linewidth=0.7)
    steps, means = thin(Series(over_seeds.steps, over_seeds.means))
    halves = thin(Series(over_seeds.steps, over_seeds.halves)).values
    axes.plot(steps, means, color=look.color, linestyle=look.dashes)
    low, high = ([mean + sign * half for mean, half in zip(means, halves, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color=look.color, alpha=0.12, linewidth=0)
    return True


def legend(figure: Figure, entries: dict[str, Look], alone: bool = False) -> None:
    """The names of lines below the panels; a single line is only named if `alone`."""
    if len(entries) < 2 and not alone:
        return
    handles = [Line2D([], [], color=look.color, linestyle=look.dashes) for look in entries.values()]
    names = [plain(name) for name in entries]
    columns = max(1, min(len(names), 56 // (max(map(len, names)) + 6)))
    plotted = figure.legend(handles, ["-"] * len(names), loc="outside lower left", ncols=columns)
    for text, name in zip(plotted.get_texts(), names, strict=True):  # matplotlib leaves out a label that begins with _
        text.set_text(name)


def fit(axes: Axes, zero: bool = True) -> None:
    """Fit the panel to the lines, starting at 0 unless some are below; an interval over few seeds may exceed it."""
    values = [value for line in axes.lines for value in line.get_ydata() if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(0.0 if zero and low >= 0 else low - margin, high + margin)
