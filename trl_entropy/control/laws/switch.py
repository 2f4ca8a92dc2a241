"""Hold a knob at one value up to a share of the run, then at another."""

from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Reading


@dataclass(frozen=True)
class Switch(Law):
    r"""
    Hold a knob at one value up to a share of the run, then at another.

    $$
    u_{k+1} = \text{before} \text{ if } k/K < \text{at}, \quad \text{after} \text{ otherwise}, \quad
    \text{after step } k \text{ of } K
    $$

    On `positive_advantage_coef` with the defaults this is Neg-to-Pos: negatives alone first, then both.

    Args:
        at (`float`, *optional*, defaults to `0.5`):
            Share of the run in [0, 1] at which the value changes. Ours: the paper's was not found.
        before (`float`, *optional*, defaults to `0.0`), after (`float`, *optional*, defaults to `1.0`):
            The two values.

    Raises `ValueError` for a value out of range.

    Reference: Mu et al., [Dissecting Long-CoT Reasoning Models](https://huggingface.co/papers/2506.04913), 2025
    (Neg-to-Pos).
    """

    uses_target: ClassVar[bool] = False

    at: float = 0.5
    before: float = 0.0
    after: float = 1.0

    def __post_init__(self) -> None:
        check_number("at", self.at, 0.0, 1.0)
        check_number("before", self.before)
        check_number("after", self.after)

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        return self.before if reading.progress < self.at else self.after, memory
