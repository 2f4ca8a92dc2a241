"""Set a knob from the entropy error and its sum over the run."""

from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Observation


@dataclass(frozen=True)
class PI(Law):
    r"""
    Set a knob from the entropy error and its sum over the run.

    $$
    u_{k+1} = K_p \, e_k + K_i \sum_{s<k} e_s
    $$

    As in the released code, the sum leaves out the newest error and grows without bound; only \\( u \\) is clipped, by
    the controller. Here errors are counted once per optimizer step over all ranks. The released code counts them per
    micro-batch on each rank and weights that same micro-batch, so here each value acts one step later.

    The options after `ki` are ours and off by default. With all of them on, and \\( \epsilon_k \\) the measured error,

    $$
    \bar\epsilon_k = \beta \, \bar\epsilon_{k-1} + (1 - \beta) \, \epsilon_k, \qquad
    e_k = \bar\epsilon_k \text{ if } |\bar\epsilon_k| \ge b, \quad 0 \text{ otherwise}
    $$

    $$
    u_{k+1} = u_k + \mathrm{clip}\Big(K_p \, e_k + K_i \sum_{s<k} e_s + K_d \, (e_k - e_{k-1}) - u_k, \; -s, \; s\Big)
    $$

    with \\( \bar\epsilon_1 = \epsilon_1 \\) and no derivative at the first step.

    Args:
        kp (`float`, *optional*, defaults to `1.0`):
            \\( K_p \ge 0 \\), knob units per nat.
        ki (`float`, *optional*, defaults to `0.01`):
            \\( K_i \ge 0 \\), knob units per nat and optimizer step.
        anti_windup (`bool`, *optional*, defaults to `False`):
            Whether to leave an error out of the sum if it would push a knob further beyond its bound or its slew
            limit. Without this, a knob that rested at its bound for long leaves it late.
        kd (`float`, *optional*, defaults to `0.0`):
            \\( K_d \ge 0 \\), knob units per nat per optimizer step. It damps a knob that overshoots, and amplifies
            noise.
        dead_band (`float`, *optional*, defaults to `0.0`):
            \\( b \ge 0 \\), nats. A smaller error, smoothed or not, counts as 0 in all three parts.
        smoothing (`float`, *optional*, defaults to `0.0`):
            \\( \beta \in [0, 1) \\), the weight of the average of earlier errors in the error that counts.
        slew (`float`, *optional*):
            \\( s > 0 \\), largest change of the knob per optimizer step, in knob units. `None` sets no limit.

    Raises `ValueError` for a value out of range.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    uses_target: ClassVar[bool] = True

    kp: float = 1.0
    ki: float = 0.01
    anti_windup: bool = False
    kd: float = 0.0
    dead_band: float = 0.0
    smoothing: float = 0.0
    slew: float | None = None

    def __post_init__(self) -> None:
        for name in ("kp", "ki", "kd", "dead_band"):
            check_number(name, getattr(self, name), low=0.0)
        check_number("smoothing", self.smoothing, 0.0, 1.0)
        if self.smoothing == 1:
            raise ValueError("smoothing must be < 1, got 1: with it the first error would count forever")
        if self.slew is not None:
            check_number("slew", self.slew, low=0.0)
            if self.slew == 0:
                raise ValueError("slew must be > 0, got 0: with it the knob never moves; null sets no limit")
        if not isinstance(self.anti_windup, bool):
            raise ValueError(f"anti_windup must be true or false, got {self.anti_windup!r}")

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        average = observation.error
        if self.smoothing and "average" in memory:
            average = self.smoothing * memory["average"] + (1 - self.smoothing) * average
        error, total = self._outside_band(average), memory.get("sum", 0.0)

        wanted = self.kp * error + self.ki * total
        if self.kd and "average" in memory:
            wanted += self.kd * (error - self._outside_band(memory["average"]))
        next_value, low, high = wanted, observation.low, observation.high
        if self.slew is not None:
            low, high = max(low, value - self.slew), min(high, value + self.slew)
            next_value = min(value + self.slew, max(value - self.slew, wanted))

        pushed_out = (wanted < low and error < 0) or (wanted > high and error > 0)
        if not (self.anti_windup and pushed_out):
            total += error
        return next_value, {"sum": total, "average": average}

    def _outside_band(self, error: float) -> float:
        return 0.0 if abs(error) < self.dead_band else error
