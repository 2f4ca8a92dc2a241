"""Move a knob by a fixed step towards the target entropy."""

from dataclasses import dataclass
from typing import ClassVar

from ...checks import check_number
from .law import Law, Memory, Observation


@dataclass(frozen=True)
class BangBang(Law):
    r"""
    Move a knob by a fixed step towards the target entropy.

    $$
    u_{k+1} = u_k + \Delta \text{ if } e_k \ge 0, \quad u_k - \Delta \text{ otherwise}
    $$

    With \\( u = \lambda_+ \\), \\( e = H - \delta \\) and the range \\( [0, 1] \\) this is the entropy-guided schedule
    of Positive-Advantage Reweighting. With `otherwise`, a value \\( c \\) moves in the same way, clipped to the
    controller's range, but the knob only takes it while the error is not negative:

    $$
    c_{k+1} = \mathrm{clip}(c_k \pm \Delta), \qquad
    u_{k+1} = c_{k+1} \text{ if } e_k \ge 0, \quad \mathtt{otherwise} \text{ if not}
    $$

    On `entropy_coef` with `otherwise=0.0` this is [Skywork-OR1](https://huggingface.co/papers/2505.22312)'s
    coefficient, which acts while the entropy is at or below its target.

    Args:
        step (`float`, *optional*, defaults to `0.05`):
            \\( \Delta > 0 \\), in units of the knob (the paper's value for \\( \lambda_+ \\)).
        otherwise (`float`, *optional*):
            The knob's value while the error is negative, clipped to its range. If `None`, the knob always has the
            moving value.

    Raises `ValueError` for a step that is not positive, or an `otherwise` that is not a number.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025.
    """

    uses_target: ClassVar[bool] = True

    step: float = 0.05
    otherwise: float | None = None

    def __post_init__(self) -> None:
        check_number("step", self.step, low=0.0)
        if self.step == 0:
            raise ValueError("step must be > 0, got 0: with it the knob never moves")
        if self.otherwise is not None:
            check_number("otherwise", self.otherwise)

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        asked_for = observation.error >= 0
        step = self.step if asked_for else -self.step
        if self.otherwise is None:
            return value + step, memory
        value = min(observation.high, max(observation.low, memory.get("value", value) + step))
        return value if asked_for else self.otherwise, {"value": value}
