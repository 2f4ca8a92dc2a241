"""The figures of a report."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from ..statistics import Arm
from .entropy import deciles, entropy, prediction, sources
from .held_out import held_out
from .lines import answers, clipping, evaluation, groups, knobs, quadrants, reward


class Plot(NamedTuple):
    """A figure's function, and a line on how to read it."""

    plot: Callable[[list[Arm]], Figure | None]
    caption: str


FIGURES = {
    "entropy": Plot(
        entropy, "Mean over the trained tokens. Shaded: 10% around the target, or the band that is the target."
    ),
    "knobs": Plot(knobs, "The values that controllers or schedules set, as used during each step."),
    "reward": Plot(reward, "Mean of the rewards of each rollout batch."),
    "held_out": Plot(held_out, "Hollow: before training. Filled: after it."),
    "evaluation": Plot(evaluation, "As logged by the evaluation."),
    "sources": Plot(
        sources,
        "First-order predictions for a unit step, by sign of the advantage: the split matters, not the size.",
    ),
    "prediction": Plot(
        prediction,
        "One dot per step. These are first-order predictions: only their sign, split and trend are meaningful.",
    ),
    "deciles": Plot(deciles, "Dotted: mean over the first quarter of the run. Solid: over the last."),
    "quadrants": Plot(quadrants, "A token is likely if its probability is at least 1/2; by sign of the advantage."),
    "answers": Plot(answers, "Correct: a reward above 0.5."),
    "groups": Plot(groups, "If all rewards in a group are equal, TRL's advantages are 0."),
    "clipping": Plot(clipping, "Tokens whose ratio left the clip range."),
}

__all__ = ["FIGURES", "Plot"]
