"""Plots of pass@k and calibration, and tables, of an evaluation."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Column, Table

from .folder import CALIBRATION, PASS_AT_K
from .metrics import Samples, Score, logprob_confidence, reliability, vote_confidence
from .paired import Difference


DOTS = 150  # per inch
NAMES, COLUMN = 20, 18  # characters of the column of names and of each column of values, with borders


def plot_figures(name: str, samples: Samples, table: Mapping[str, Score], folder: Path) -> None:
    """Both plots of a set of problems, as PNG files in a folder."""
    pass_at_k(name, table).savefig(folder / PASS_AT_K, dpi=DOTS)
    calibration(name, samples, table).savefig(folder / CALIBRATION, dpi=DOTS)


def pass_at_k(name: str, table: Mapping[str, Score]) -> Figure:
    """pass@k and maj@k over k, with their standard errors."""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for kind in ("pass", "maj"):
        curve = {int(key.partition("@")[2]): score for key, score in table.items() if key.startswith(f"{kind}@")}
        values, errors = zip(*((score.value, score.stderr) for score in curve.values()), strict=True)
        axes.errorbar(list(curve), values, yerr=errors, marker="o", markersize=4, capsize=3, label=f"{kind}@k")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(curve), [str(k) for k in curve])
    axes.minorticks_off()
    axes.set(xlabel="k", title=_plain(name))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _tidy(axes)
    return figure


def calibration(name: str, samples: Samples, table: Mapping[str, Score]) -> Figure:
    """The reliability of both confidences: the accuracy of the samples per bin, and their share below."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    figure.suptitle(_plain(name))
    upper, lower = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    confidences = {
        "logprob": ("by the tokens", logprob_confidence(samples.logprobs)),
        "vote": ("by the vote", vote_confidence(samples.answers)),
    }
    for axes, below, (kind, (label, confidence)) in zip(upper, lower, confidences.items(), strict=True):
        bins = reliability(confidence, samples.correct)
        filled = [one for one in bins if one.count]
        width = bins[0].high - bins[0].low
        axes.bar([one.low for one in filled], [one.accuracy for one in filled], width, align="edge", edgecolor="white")
        axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
        means = [one.confidence for one in filled], [one.accuracy for one in filled]
        axes.plot(*means, "o", color="C1", markersize=3, clip_on=False)
        axes.set(
            title=f"{label}: ECE {table[f'ece_{kind}'].value:.3f}", xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy"
        )
        shares = [one.count / samples.correct.size for one in bins]
        below.bar([one.low for one in bins], shares, width, align="edge", color="lightgray", edgecolor="white")
        below.set(xlabel="confidence", ylabel="samples")
        _tidy(axes)
        _tidy(below)
    return figure


def _plain(name: str) -> str:
    return name.replace("$", r"\$")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.2)


# Tables


def score_tables(tables: Mapping[str, Mapping[str, Score]], width: int) -> list[Table]:
    """
    Tables with a column per set of problems, value ± standard error, split if there are too many columns.

    Args:
        tables (`Mapping[str, Mapping[str, Score]]`):
            Scores by name of the set.
        width (`int`):
            Characters per line.
    """
    sets = list(tables)
    at_once = max(1, (width - NAMES) // COLUMN)
    parts = [sets[start : start + at_once] for start in range(0, len(sets), at_once)]
    return [_score_table({name: tables[name] for name in part}) for part in parts]


def _score_table(tables: Mapping[str, Mapping[str, Score]]) -> Table:
    table = Table(Column("", no_wrap=True), *(Column(name, justify="right", overflow="fold") for name in tables))
    for name in next(iter(tables.values())):
        table.add_row(name, *(_score(scores[name]) for scores in tables.values()))
    return table


def difference_table(title: str, differences: Mapping[str, Difference]) -> Table:
    """A row per metric: the difference, its interval, problems won and lost, and the sign test."""
    right = {"justify": "right", "no_wrap": True}
    columns = [Column(name, **right) for name in ("difference", "95% interval", "won", "lost", "sign test p")]
    table = Table("", *columns, title=title, title_justify="left")
    for name, difference in differences.items():
        interval = f"{_number(difference.low, '+')} to {_number(difference.high, '+')}"
        counts = ["-" if count is None else str(count) for count in (difference.wins, difference.losses)]
        p_value = "-" if isnan(difference.p_value) else f"{difference.p_value:.3g}"
        table.add_row(name, _number(difference.value, "+"), interval, *counts, p_value)
    return table


def _score(score: Score) -> str:
    value = _number(score.value)
    return value if isnan(score.stderr) else f"{value} ± {_number(score.stderr)}"


def _number(value: float, sign: str = "") -> str:
    if isnan(value):
        return "-"
    value = round(value, 9)  # equal values are printed alike, even if computed differently
    return f"{value:{sign}.1f}" if abs(value) >= 100 else f"{value:{sign}.3f}"
