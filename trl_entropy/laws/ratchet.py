"""Multiply a knob while more of it is asked for, divide it otherwise."""

import sys
from dataclasses import dataclass
from typing import ClassVar

from ..tokens import check_number
from .law import Law, Memory, Reading


@dataclass(frozen=True)
class Ratchet(Law):
    r"""
    Multiply a knob while more of it is asked for, divide it otherwise.

    $$
    u_{k+1} = u_k \, \text{factor} \text{ if } e_k > 0, \quad u_k / \text{factor} \text{ otherwise}, \quad u_1 > 0
    $$

    With \\( u = \zeta \\) of [`~bonuses.RepoR`], \\( e = H^* - H \\) and the starting entropy as target
    \\( H^* \\) this is the rule of REPO-R: \\( \zeta \\) is doubled below the target and halved otherwise. Give
    the controller a `low` above 0: from far below a knob needs many steps to come back.

    Args:
        factor (`float`, *optional*, defaults to `2.0`):
            Factor > 1 per optimizer step (the paper's).

    Raises `ValueError` for a factor that is not above 1, and for a knob that starts at 0 or below: no factor gets it
    away from there.

    Reference: [Entropy-Preserving Reinforcement Learning](https://huggingface.co/papers/2603.11682), 2026 (REPO-R).
    """

    uses_target: ClassVar[bool] = True

    factor: float = 2.0

    def __post_init__(self):
        check_number("factor", self.factor, low=1.0)
        if self.factor == 1:
            raise ValueError("factor must be > 1, got 1: with it the knob never moves")

    def check_start(self, value: float) -> None:
        if value <= 0:
            raise ValueError(
                f"the ratchet law multiplies, so the knob must start above 0, got {value:g}: set initial, and low to "
                "a value above 0"
            )

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        self.check_start(value)
        value = value * self.factor if reading.error > 0 else value / self.factor
        return min(sys.float_info.max, max(sys.float_info.min, value)), memory
