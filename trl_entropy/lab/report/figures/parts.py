"""Figures of the entropy of kinds of tokens, for a single run."""

from matplotlib.figure import Figure

from ..statistics import Arm
from .style import COLORS, NEGATIVE, POSITIVE, STYLE, Look, draw_series, fit, legend, panels


DASHED = (0, (3, 1.5))
QUADRANTS = {
    "likely, positive": ("likely_positive", POSITIVE),
    "unlikely, positive": ("unlikely_positive", Look(POSITIVE.color, DASHED)),
    "likely, negative": ("likely_negative", NEGATIVE),
    "unlikely, negative": ("unlikely_negative", Look(NEGATIVE.color, DASHED)),
}
ANSWERS = {"correct": ("correct", Look(COLORS[0])), "incorrect": ("incorrect", Look(COLORS[4], DASHED))}


@STYLE
def quadrants(arms: list[Arm]) -> Figure | None:
    """Entropy of likely and unlikely tokens of either sign of the advantage."""
    return _parts(arms, "Entropy of likely and unlikely tokens", QUADRANTS)


@STYLE
def answers(arms: list[Arm]) -> Figure | None:
    """Entropy in correct and in incorrect answers."""
    return _parts(arms, "Entropy in right and wrong answers", ANSWERS)


def _parts(arms: list[Arm], title: str, parts: dict[str, tuple[str, Look]]) -> Figure | None:
    series = arms[0].runs[0].series
    known = {name: (f"entropy/{key}", look) for name, (key, look) in parts.items() if f"entropy/{key}" in series}
    if not known or len(arms) > 1 or len(arms[0].runs) > 1:
        return None
    figure, (axes,) = panels(title)
    for key, look in known.values():
        draw_series(axes, series[key], look, raw=False)
    axes.set(xlabel="optimizer step", ylabel="nats per token")
    fit(axes)
    legend(figure, {name: look for name, (_, look) in known.items()})
    return figure
