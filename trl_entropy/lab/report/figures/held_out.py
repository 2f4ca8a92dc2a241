"""Figures of the scores on held-out problems."""

from matplotlib.figure import Figure

from ..findings.arms import of_arm, score
from ..statistics import Arm, estimate
from .style import MUTED, STYLE, Look, draw_arm, fit, legend, look_of, panels, plain


MOST_SCORES = 4  # in one figure


@STYLE
def held_out(arms: list[Arm]) -> Figure | None:
    """Scores before training (hollow) and after it (filled), with the 95% interval over several seeds."""
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


@STYLE
def evaluation(arms: list[Arm]) -> Figure | None:
    """Scores that evaluation logged during training; without pass@k, its reward."""
    keys = list(
        dict.fromkeys(key for arm in arms for run in arm.runs for key in run.series if key.startswith("eval_"))
    )
    keys = ([key for key in keys if "@" in key] or [key for key in keys if key == "eval_reward"])[:MOST_SCORES]
    if not keys:
        return None
    figure, rows = panels("Evaluation during training", len(keys), 1.2 + 1.4 * len(keys), sharex=True)
    drawn: dict[str, Look] = {}
    for axes, key in zip(rows, keys, strict=True):
        for index, arm in enumerate(arms):
            if draw_arm(axes, arm, key, look_of(index)):
                drawn[arm.name] = look_of(index)
        axes.set_title(plain(key.removeprefix("eval_")))
        fit(axes)
    rows[-1].set_xlabel("optimizer step")
    legend(figure, drawn)
    return figure if drawn else None
