"""Move a knob from one value to another over a share of the run."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Observation


SHAPES = ("linear", "cosine")


@dataclass(frozen=True)
class Schedule(Law):
    r"""
    Move a knob from one value to another over a share of the run.

    $$
    u_{k+1} = (1 - s) \, \text{start} + s \, \text{end}, \qquad
    s = t \;\; (\text{linear}) \quad \text{or} \quad \tfrac{1}{2} (1 - \cos \pi t) \;\; (\text{cosine})
    $$

    $$
    t = \mathrm{clip}\Big(\frac{k/K - \text{begin}}{\text{finish} - \text{begin}}, \; 0, \; 1\Big) \quad
    \text{after step } k \text{ of } K
    $$

    If `begin` equals `finish`, the value jumps there: \\( t = 1 \\) from \\( k/K = \text{begin} \\), 0 before.
    [`stage`] is the paper's setting; all other settings are ours.

    Args:
        start (`float`, *optional*, defaults to `0.0`), end (`float`, *optional*, defaults to `1.0`):
            The values before `begin` and after `finish`, in units of the knob.
        begin (`float`, *optional*, defaults to `0.0`), finish (`float`, *optional*, defaults to `1.0`):
            Shares of the run in [0, 1] between which the knob moves, `begin <= finish`.
        shape (`str`, *optional*, defaults to `"linear"`):
            linear or cosine; cosine is slow at both ends.

    Raises `ValueError` for a value out of range, an unknown shape, or a `begin` after `finish`.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (stage-based reweighting).
    """

    uses_target: ClassVar[bool] = False

    start: float = 0.0
    end: float = 1.0
    begin: float = 0.0
    finish: float = 1.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_number("begin", self.begin, 0.0, 1.0)
        check_number("finish", self.finish, 0.0, 1.0)
        if self.begin > self.finish:
            raise ValueError(f"begin must not be above finish, got begin={self.begin:g}, finish={self.finish:g}")
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")

    def value_at(self, progress: float) -> float:
        """The value at a share of the run."""
        if self.begin == self.finish:
            share = float(progress >= self.begin)
        else:
            share = min(1.0, max(0.0, (progress - self.begin) / (self.finish - self.begin)))
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return (1 - share) * self.start + share * self.end

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        return self.value_at(observation.progress), memory


def constant(value: float = 0.0) -> Schedule:
    """
    Hold a knob at one value for the whole run.

    This is the baseline for a controller: on `entropy_coef` it is the fixed counterpart of Skywork-OR1's adaptive
    coefficient. It does the same as the knob's own flag, but is set where the run to compare with has its controller.

    Args:
        value (`float`, *optional*, defaults to `0.0`):
            The value, in units of the knob, clipped to its range. Ours.

    Raises `ValueError` for a value that is not a number.

    Reference: [Skywork Open Reasoner 1 Technical Report](https://huggingface.co/papers/2505.22312), 2025 (whose
    coefficient adapts).
    """
    check_number("value", value)
    return Schedule(start=value, end=value, finish=0.0)


def stage() -> Schedule:
    r"""
    Hold a knob at 0 in the first half of the run, then raise it linearly to 1.

    \\( u_{k+1} = \max(0, \; 2k/K - 1) \\) after step \\( k \\) of \\( K \\).

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (stage-based reweighting).
    """
    return Schedule(begin=0.5)


def switch(at: float = 0.5, before: float = 0.0, after: float = 1.0) -> Schedule:
    """
    Hold a knob at one value up to a share of the run, then at another.

    On `positive_advantage_coef` with the defaults this is Neg-to-Pos: first only negative advantages, then both signs.

    Args:
        at (`float`, *optional*, defaults to `0.5`):
            Share of the run in [0, 1] at which the value changes. Ours: we could not find the paper's value.
        before (`float`, *optional*, defaults to `0.0`), after (`float`, *optional*, defaults to `1.0`):
            The values before and after the change.

    Raises `ValueError` for a value out of range.

    Reference: Mu et al., [Dissecting Long-CoT Reasoning Models](https://huggingface.co/papers/2506.04913), 2025
    (Neg-to-Pos).
    """
    check_number("at", at, 0.0, 1.0)
    check_number("before", before)
    check_number("after", after)
    return Schedule(start=before, end=after, begin=at, finish=at)
