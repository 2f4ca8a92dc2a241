"""Move a knob from one value to another over a share of the run."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Reading


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

    With `begin=0.5` and the other defaults it is [`~laws.Stage`], the paper's stage-based schedule; any other choice
    of the numbers is ours.

    Args:
        start (`float`, *optional*, defaults to `0.0`), end (`float`, *optional*, defaults to `1.0`):
            The values before `begin` and after `finish`, in units of the knob.
        begin (`float`, *optional*, defaults to `0.0`), finish (`float`, *optional*, defaults to `1.0`):
            Shares of the run in [0, 1] between which the knob moves, `begin < finish`.
        shape (`str`, *optional*, defaults to `"linear"`):
            linear, or cosine: slow at both ends.

    Raises `ValueError` for a value out of range, an unknown shape, or a `begin` that is not before `finish`.

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
        if self.begin >= self.finish:
            raise ValueError(
                f"begin must be below finish, got begin={self.begin:g}, finish={self.finish:g}; the switch law jumps"
            )
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        share = min(1.0, max(0.0, (reading.progress - self.begin) / (self.finish - self.begin)))
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return (1 - share) * self.start + share * self.end, memory
