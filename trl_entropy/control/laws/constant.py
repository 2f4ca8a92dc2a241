"""Hold a knob at one value for the whole run."""

from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Reading


@dataclass(frozen=True)
class Constant(Law):
    r"""
    Hold a knob at one value for the whole run.

    $$
    u_{k+1} = \text{value}
    $$

    The arm that a controller has to beat: on `entropy_coef` it is the fixed counterpart of Skywork-OR1's adaptive
    coefficient. It does the same as the knob's own flag, from the place where the other arm has its controller.

    Args:
        value (`float`, *optional*, defaults to `0.0`):
            The value, in units of the knob, clipped to its range. Ours.

    Raises `ValueError` for a value that is no number.

    Reference: [Skywork Open Reasoner 1 Technical Report](https://huggingface.co/papers/2505.22312), 2025 (whose
    coefficient adapts).
    """

    uses_target: ClassVar[bool] = False

    value: float = 0.0

    def __post_init__(self) -> None:
        check_number("value", self.value)

    def __call__(self, value: float, memory: Memory, reading: Reading) -> tuple[float, Memory]:
        return self.value, memory
