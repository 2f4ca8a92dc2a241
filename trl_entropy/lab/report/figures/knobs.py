"""The figure of the knobs that were turned."""

from matplotlib.figure import Figure

from ..control import turned_knobs
from ..statistics import Arm
from .style import STYLE, Look, draw_arm, fit, legend, look_of, panels, plain


MOST_KNOBS = 6  # in one figure


@STYLE
def knobs(arms: list[Arm]) -> Figure | None:
    """The values in force of the knobs that moved, or that a controller had; a panel for each."""
    names = list(dict.fromkeys(name for arm in arms for run in arm.runs for name in turned_knobs(run)))[:MOST_KNOBS]
    if not names:
        return None
    figure, rows = panels("Knobs in force", len(names), 1.5 + 1.25 * len(names) - 0.25, sharex=True)
    drawn: dict[str, Look] = {}
    for axes, name in zip(rows, names, strict=True):
        for index, arm in enumerate(arms):
            if all(name in turned_knobs(run) for run in arm.runs) and draw_arm(
                axes, arm, f"knobs/{name}", look_of(index)
            ):
                drawn[arm.name] = look_of(index)
        axes.set_title(plain(name, 48))
        fit(axes, zero=False)
    rows[-1].set_xlabel("optimizer step")
    legend(figure, drawn)
    return figure
