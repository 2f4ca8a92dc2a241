"""Multiply a knob while its error is positive, and divide it while the error is negative."""

import sys
from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Observation


@dataclass(frozen=True)
class Ratchet(Law):
    r"""
    Multiply a knob while its error is positive, and divide it while the error is negative.

    $$
    u_{k+1} = u_k \, \text{factor} \text{ if } e_k > 0, \quad u_k / \text{factor} \text{ if } e_k < 0, \quad
    u_k \text{ if } e_k = 0
    $$

    With `least` the value may also be negative. For negative values multiplication and division change places. Where
    dividing would make \\( |u| \\) smaller than `least`, the value changes its sign: it becomes `least` if
    \\( e_k > 0 \\), else `-least`. Without `least` the value stays above 0. Then give the controller a `low` above 0,
    since a knob that is almost 0 needs many steps to come back.

    With \\( u = \zeta \\) of [`~bonuses.RepoR`], \\( e = H^* - H \\), `least` 1e-4 and the range [-0.05, 0.05] this
    is the controller of REPO-R.

    Args:
        factor (`float`, *optional*, defaults to `2.0`):
            Factor > 1 per decision (the paper's value).
        least (`float`, *optional*, defaults to `0.0`):
            Smallest absolute value >= 0, at which the sign changes; with 0 it never does.

    Raises `ValueError` for a factor that is not above 1, a negative `least`, and, without `least`, for a knob that
    starts at 0 or below, where multiplying does not help.

    Reference: [Entropy-Preserving Reinforcement Learning](https://huggingface.co/papers/2603.11682), 2026 (REPO-R; the
    change of sign as in [SkyRL](https://github.com/NovaSky-AI/SkyRL/pull/1896)).
    """

    uses_target: ClassVar[bool] = True

    factor: float = 2.0
    least: float = 0.0

    def __post_init__(self) -> None:
        check_number("factor", self.factor, low=1.0)
        if self.factor == 1:
            raise ValueError("factor must be > 1, got 1: with it the knob never moves")
        check_number("least", self.least, low=0.0)

    def check_start(self, value: float) -> None:
        if value <= 0 and not self.least:
            raise ValueError(
                f"the ratchet law multiplies, so the knob must start above 0, got {value:g}: set initial and low to "
                "values above 0, or set least"
            )

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        self.check_start(value)
        if observation.error == 0:
            return value, memory
        sign, size = (1 if value >= 0 else -1), abs(value)
        if (observation.error > 0) == (sign > 0):
            size *= self.factor
        elif size / self.factor >= self.least:
            size /= self.factor
        else:
            sign, size = -sign, self.least
        return sign * min(sys.float_info.max, max(self.least or sys.float_info.min, size)), memory
