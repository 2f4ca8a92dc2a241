"""Move a knob in proportion to the entropy error."""

from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Observation


@dataclass(frozen=True)
class Integral(Law):
    r"""
    Move a knob in proportion to the entropy error.

    $$
    u_{k+1} = u_k + \eta \, e_k
    $$

    The controller clips \\( u \\) at every step and the law continues from the clipped value. So a knob leaves its
    bound as soon as the error changes its sign: there is no wind-up, unlike with [`~laws.PI`] and `kp=0`. The law is
    ours, in the style of AER, which adjusts a global coefficient continuously; we could not read its equations.

    Args:
        rate (`float`, *optional*, defaults to `0.01`):
            \\( \eta > 0 \\), knob units per nat and decision. Ours.

    Raises `ValueError` for a rate that is not positive.

    Reference: [Revisiting Entropy Regularization: Adaptive Coefficient Unlocks Its Potential for LLM Reinforcement
    Learning](https://huggingface.co/papers/2510.10959), 2025 (AER).
    """

    uses_target: ClassVar[bool] = True

    rate: float = 0.01

    def __post_init__(self) -> None:
        check_number("rate", self.rate, low=0.0)
        if self.rate == 0:
            raise ValueError("rate must be > 0, got 0: with it the knob never moves")

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        return value + self.rate * observation.error, memory
