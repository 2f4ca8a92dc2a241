"""Hold a knob at 0 in the first half of the run, then raise it linearly to 1."""

from dataclasses import dataclass
from typing import ClassVar

from .law import Law, Memory, Reading


@dataclass(frozen=True)
class Stage(Law):
    r"""
    Hold a knob at 0 in the first half of the run, then raise it linearly to 1.

    $$
    u_{k+1} = \max(0, \; 2k/K - 1) \quad \text{after step } k \text{ of } K
    $$

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (stage-based reweighting).
    """

    uses_target: ClassVar[bool] = False

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        return max(0.0, 2 * reading.progress - 1), memory
