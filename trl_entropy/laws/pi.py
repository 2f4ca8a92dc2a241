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

    As in the released code the sum leaves out the newest error and grows without bound; only \\( u \\) is clipped, by
    the controller. Errors are counted once per optimizer step over all ranks, where the released code counts them per
    micro-batch on each rank.

    Args:
        kp (`float`, *optional*, defaults to `1.0`):
            \\( K_p \ge 0 \\), knob units per nat.
        ki (`float`, *optional*, defaults to `0.01`):
            \\( K_i \ge 0 \\), knob units per nat and optimizer step.
        anti_windup (`bool`, *optional*, defaults to `False`):
            Whether to leave an error out of the sum that would push a knob at its bound further out; ours. Without it
            a knob that rested at its bound for long leaves it late.

    Raises `ValueError` for a negative gain.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    uses_target: ClassVar[bool] = True

    kp: float = 1.0
    ki: float = 0.01
    anti_windup: bool = False

    def __post_init__(self):
        check_number("kp", self.kp, low=0.0)
        check_number("ki", self.ki, low=0.0)
        if not isinstance(self.anti_windup, bool):
            raise ValueError(f"anti_windup must be true or false, got {self.anti_windup!r}")

    def __call__(self, value: float, memory: float, reading: Reading) -> tuple[float, float]:
        value = self.kp * reading.error + self.ki * memory
        pushed_out = (value < reading.low and reading.error < 0) or (value > reading.high and reading.error > 0)
        return value, memory if self.anti_windup and pushed_out else memory + reading.error
