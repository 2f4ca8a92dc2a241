"""The figures of a report."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from ..statistics import Arm
from .entropy import deciles, entropy, prediction, sources
from .held_out import evaluation, held_out
from .knobs import knobs
from .learning import clipping, groups, reward
from .parts import answers, quadrants


class Drawing(NamedTuple):
    """A figure's function, and a line that says how to read it."""

    draw: Callable[[list[Arm]], Figure | None]
    caption: str


FIGURES = {
    "entropy": Drawing(
        entropy, "Mean over the trained tokens. Shaded: 10% around the target, or the band that is the target."
    ),
    "knobs": Drawing(knobs, "What the controllers, or schedules, set; in force during each step."),
    "reward": Drawing(reward, "Mean of the rewards of each rollout batch."),
    "held_out": Drawing(held_out, "Hollow: before training. Filled: after it."),
    "evaluation": Drawing(evaluation, "As evaluation logged it."),
    "sources": Drawing(
        sources,
        "First-order predictions for a unit step, by sign of the advantage: the split counts, not the size.",
    ),
    "prediction": Drawing(
        prediction, "A dot for each step. First order: only sign, split and course of a prediction mean something."
    ),
    "deciles": Drawing(deciles, "Dotted: mean of the first quarter of the run. Solid: of the last."),
    "quadrants": Drawing(quadrants, "A token is likely if its probability is at least 1/2; by sign of the advantage."),
    "answers": Drawing(answers, "Correct: a reward above 0.5."),
    "groups": Drawing(groups, "Where all rewards of a group are equal, TRL's advantages are 0."),
    "clipping": Drawing(clipping, "Tokens whose ratio left the clip range."),
}

__all__ = ["FIGURES", "Drawing"]
