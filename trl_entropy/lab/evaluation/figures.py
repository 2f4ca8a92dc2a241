"""The pictures of an evaluation: pass@k, and how far confidence is to be trusted."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .calibration import reliability
from .confidence import logprob_confidence, vote_confidence
from .folder import CALIBRATION, PASS_AT_K
from .metrics import Score
from .samples import Samples


DOTS = 150  # per inch


def draw_figures(name: str, samples: Samples, table: Mapping[str, Score], folder: Path) -> None:
    """Both pictures of a set of problems, as PNG files in a folder."""
    _save(pass_at_k(name, table), folder / PASS_AT_K)
    _save(calibration(name, samples, table), folder / CALIBRATION)


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
    """The reliability of both confidences: the accuracy of the samples in each bin, and below it their share."""
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


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS)
