"""Set a knob in proportion to the entropy error and to its sum over the run."""

from dataclasses import dataclass
from typing import ClassVar

from ..tokens import check_number
from .law import Law, Reading


@dataclass(frozen=True)
class PI(Law):
    r"""
    Set a knob in proportion to the entropy error and to its sum over the run.

    $$
    u_{k+1} = K_p \, e_k + K_i \sum_{s<k} e_s
    $$

    As in the released code the sum leaves out the newest error and is never clamped; only \\( u \\) is, by the
    controller. Errors are counted once per optimizer step over all ranks, where the released code counts them per
    micro-batch on each rank.

    Args:
        kp (`float`, *optional*, defaults to `1.0`):
            \\( K_p \ge 0 \\), knob units per nat.
        ki (`float`, *optional*, defaults to `0.01`):
            \\( K_i \ge 0 \\), knob units per nat and optimizer step.

    Raises `ValueError` for a negative gain.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    uses_target: ClassVar[bool] = True

    kp: float = 1.0
    ki: float = 0.01

    def __post_init__(self):
        check_number("kp", self.kp, low=0.0)
        check_number("ki", self.ki, low=0.0)

    def __call__(self, value: float, memory: float, reading: Reading) -> tuple[float, float]:
        return self.kp * reading.error + self.ki * memory, memory + reading.error
