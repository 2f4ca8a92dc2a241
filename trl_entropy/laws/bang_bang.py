"""Move a knob by a fixed step towards the target entropy."""

from dataclasses import dataclass
from typing import ClassVar

from ..tokens import check_number
from .law import Law, Memory, Reading


@dataclass(frozen=True)
class BangBang(Law):
    r"""
    Move a knob by a fixed step towards the target entropy.

    $$
    u_{k+1} = u_k + \Delta \text{ if } e_k \ge 0, \quad u_k - \Delta \text{ otherwise}
    $$

    With \\( u = \lambda_+ \\), \\( e = H - \delta \\) and the range \\( [0, 1] \\) this is the entropy-guided schedule
    of Positive-Advantage Reweighting.

    Args:
        step (`float`, *optional*, defaults to `0.05`):
            \\( \Delta > 0 \\), in units of the knob (the paper's value for \\( \lambda_+ \\)).

    Raises `ValueError` for a step that is not positive.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025.
    """

    uses_target: ClassVar[bool] = True

    step: float = 0.05

    def __post_init__(self):
        check_number("step", self.step, low=0.0)
        if self.step == 0:
            raise ValueError("step must be > 0, got 0: with it the knob never moves")

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        return value + (self.step if reading.error >= 0 else -self.step), memory
