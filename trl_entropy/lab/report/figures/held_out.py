"""The figure of the scores on held-out problems."""

from matplotlib.figure import Figure

from ..findings.arms import of_arm, score
from ..statistics import Arm, estimate
from .lines import MOST_SCORES
from .style import MUTED, STYLE, look_of, panels, plain


@STYLE
def held_out(arms: list[Arm]) -> Figure | None:
    """Scores before training (hollow) and after it (filled), with the 95% interval if there are several seeds."""
    names = list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.scores.get("after", {})))
    names = names[:MOST_SCORES]
    if not names:
        return None
    height = 0.9 + len(names) * (0.35 + 0.2 * len(arms))
    figure, rows = panels("Held-out problems, before and after", len(names), height, sharex=True)
    for axes, name in zip(rows, names, strict=True):
        for place, arm in enumerate(arms):
            before = [run.scores["before"][name] for run in arm.runs if name in run.scores.get("before", {})]
            after, color = of_arm(arm, score(name)), look_of(place).color
            if after is None:
                continue
            if before:
                start = estimate(before).mean
                axes.plot([start, after.mean], [place, place], color=color, linewidth=1, alpha=0.5)
                axes.plot(start, place, "o", markersize=5, markerfacecolor="none", markeredgecolor=MUTED)
            axes.errorbar(after.mean, place, xerr=after.half, fmt="o", markersize=5, color=color, linewidth=1.2)
        axes.set_yticks(range(len(arms)), [plain(arm.name, 20) for arm in arms])
        axes.set(title=name, xlim=(-0.02, 1.02), ylim=(len(arms) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
    rows[-1].set_xlabel("score")
    return figure
