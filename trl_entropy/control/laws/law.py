"""What a control law is: numbers in, a number out."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


# What a law remembers from step to step: numbers by name, empty at the start of a run
Memory = dict[str, float]


class Observation(NamedTuple):
    """
    What a law sees after an optimizer step.

    Args:
        error (`float`):
            Nats. Positive asks for a larger value of the knob: target - H if the knob raises entropy, else H - target.
        progress (`float`):
            Share of the run's optimizer steps that are done, in `[0, 1]`.
        epoch (`float`):
            Epochs done; the run is in epoch `floor(epoch) + 1`.
        num_epochs (`int`):
            Epochs of the whole run.
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
    A pure control law. It knows no trainer and keeps no state: `memory` is handed in and out, and never changed in
    place.
    """

    # Whether the law steers towards a target entropy; if not, it is a schedule
    uses_target: ClassVar[bool]

    def check_start(self, value: float) -> None:  # noqa: B027 (most laws start anywhere)
        """Raise `ValueError` if the law cannot start from this value of the knob."""

    @abstractmethod
    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        """The knob's next value (the controller clips it to the knob's range) and the law's next memory."""
