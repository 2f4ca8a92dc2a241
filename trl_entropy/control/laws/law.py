"""The base class of control laws: numbers in, a number out."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


# A law's memory between steps: numbers by name, empty at the start of a run
Memory = dict[str, float]


class Observation(NamedTuple):
    """
    A law's input after an optimizer step.

    Args:
        error (`float`):
            In the signal's unit: target - signal if a larger knob raises the signal, else signal - target. If it is
            positive, the knob should become larger.
        progress (`float`):
            Share of the run's optimizer steps that are complete, in `[0, 1]`.
        epoch (`float`):
            Completed epochs; the run is in epoch `floor(epoch) + 1`.
        num_epochs (`int`):
            Number of epochs in the whole run.
        low, high (`float`, *optional*):
            Range to which the controller clips the knob's value.
    """

    error: float
    progress: float
    epoch: float
    num_epochs: int
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Law(ABC):
    """
    A pure control law. It does not know the trainer and keeps no state: it takes `memory`, never changes it in place,
    and returns the next one.
    """

    # Whether the law steers towards a target; otherwise it is a schedule
    uses_target: ClassVar[bool]

    def check_start(self, value: float) -> None:  # noqa: B027 (most laws can start anywhere)
        """Raise `ValueError` if the law cannot start from this value of the knob."""

    @abstractmethod
    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        """The knob's next value (the controller clips it to the knob's range) and the law's next memory."""
