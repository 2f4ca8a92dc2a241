"""The target of a controller: the value at which it holds its signal."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..checks import bind, check_number, check_saved, damaged
from .laws import Schedule


logger = logging.getLogger(__name__)

LIKE_PERCENT = 10.0  # a share of the start this large was meant as one of a hundred; ours


@dataclass
class Target:
    r"""
    The value to hold a signal \\( H \\) at: a point, a band, or a point that moves over the run.

    $$
    \text{low}_k \le H_k \le \text{high}_k, \qquad \text{times } H_0 = \frac{1}{M} \sum_{k=1}^{M} H_k
    \text{ if it is a share}
    $$

    Args:
        low, high (`float` or [`~laws.Schedule`]):
            The bounds of the band, equal for a point; in the signal's unit, or as shares of its starting value.
        is_ratio (`bool`, *optional*, defaults to `False`):
            Whether the bounds are shares of the starting signal \\( H_0 \\).
        start_steps (`int`, *optional*, defaults to `1`):
            \\( M \\): the number of first optimizer steps over which the starting signal is measured. The knob rests
            during them.
    """

    low: float | Schedule
    high: float | Schedule
    is_ratio: bool = False
    start_steps: int = 1
    num_steps: int = 0  # the steps measured so far
    signal_sum: float = 0.0
    known: bool = False  # whether the starting signal is known

    @property
    def start(self) -> float | None:
        """The starting signal; `None` if it is not needed or not known yet."""
        return self.signal_sum / self.num_steps if self.known else None

    def forget(self) -> None:
        """Measure the starting signal again."""
        self.num_steps, self.signal_sum, self.known = 0, 0.0, False

    def text(self, unit: str) -> str:
        """The target in words; `unit` is the signal's unit."""
        low, high = (
            f"{bound.start:g} moving to {bound.end:g}" if isinstance(bound, Schedule) else f"{bound:g}"
            for bound in (self.low, self.high)
        )
        bounds = low if low == high else f"{low} to {high}"
        if not self.is_ratio:
            return f"{bounds}{unit}"
        steps = "step 1" if self.start_steps == 1 else f"steps 1 to {self.start_steps}"
        return f"{bounds} of its start, the mean of optimizer {steps}"

    def measure(self, signal: float) -> None:
        """Count the signal of an optimizer step into the starting signal."""
        if self.is_ratio and not self.known:
            self.num_steps += 1
            self.signal_sum += signal
            self.known = self.num_steps >= self.start_steps

    def nearest(self, signal: float, progress: float) -> float | None:
        """The value in the band nearest to a signal; `None` until the starting signal is known."""
        if self.is_ratio and self.start is None:
            return None
        scale = self.start if self.is_ratio else 1.0
        low, high = (
            scale * (bound.value_at(progress) if isinstance(bound, Schedule) else bound)
            for bound in (self.low, self.high)
        )
        return min(high, max(low, signal))

    def state_dict(self) -> dict:
        """The state for a checkpoint."""
        return {"measured": self.num_steps, "total": self.signal_sum, "known": self.known} if self.is_ratio else {}

    def load_state_dict(self, state: Mapping, source: str) -> None:
        """
        Restore the state from a checkpoint. A starting signal that is known there stays, whatever `start_steps` is.

        Raises `ValueError` if the target is relative and the checkpoint has no starting signal.
        """
        if not self.is_ratio:
            return
        if not state:
            raise ValueError(
                f"{source} has no starting signal, and a target_ratio is a share of it: set target, in the signal's "
                "own unit"
            )
        check_saved(source, state, {"measured": int, "total": float})
        if state["measured"] < (state.get("known") is True) or not math.isfinite(state["total"]):
            raise damaged(source, f"a start of {state['total']} over {state['measured']} steps")
        self.num_steps, self.signal_sum = state["measured"], state["total"]
        self.known = self.num_steps >= self.start_steps or state.get("known") is True
        if self.known and self.num_steps != self.start_steps:
            logger.warning(
                "start_steps=%d has no effect: the start was measured over the first %d steps, and the start in %s "
                "stays in force",
                *(self.start_steps, self.num_steps, source),
            )


def build_target(flag: str, value, is_ratio: bool, start_steps: int, positive: bool) -> Target:
    """
    Build a target from the config.

    Args:
        flag (`str`):
            The flag that was set; for error messages.
        value (`float`, `list` or `Mapping`):
            A number (a point), `[low, high]` (a band), or the settings of [`~laws.Schedule`] with `start` and `end`.
        is_ratio (`bool`), start_steps (`int`):
            As in [`Target`].
        positive (`bool`):
            Whether the signal, and therefore its target, is always positive.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, Mapping):
        for key in ("start", "end"):
            if key not in value:
                raise ValueError(f"{flag} has no {key}: a moving target is {{start: ..., end: ...}}, got {value!r}")
        low = high = bind(flag, Schedule, value)
        points = {f"{flag}.start": low.start, f"{flag}.end": low.end}
    elif isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(f"{flag} must be a number, a band [low, high] or {{start: ..., end: ...}}, got {value!r}")
        low, high = value
        points = {f"{flag}[0]": low, f"{flag}[1]": high}
    else:
        low = high = value
        points = {flag: value}
    for name, point in points.items():
        check_number(name, point)
        if positive and point <= 0:
            raise ValueError(f"{name} must be > 0, got {point:g}")
        if is_ratio and point >= LIKE_PERCENT:
            logger.warning("%s=%g is %g times the start, and 1 is the start itself: 0.5 is a half", name, point, point)
    if isinstance(value, list | tuple) and low >= high:
        raise ValueError(f"{flag}: a band is [low, high] with low < high, got {value!r}")
    return Target(low, high, is_ratio, start_steps)
