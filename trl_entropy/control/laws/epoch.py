"""Raise a knob from 0 in the first epoch to 1 in the last."""

import math
from dataclasses import dataclass
from typing import ClassVar

from .law import Law, Memory, Observation


@dataclass(frozen=True)
class Epoch(Law):
    r"""
    Raise a knob from 0 in the first epoch to 1 in the last.

    $$
    u = (e - 1) / (E - 1) \quad \text{in epoch } e = 1, \dots, E
    $$

    Raises `ValueError` at the start of a run with fewer than two epochs, where the formula is undefined.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (epoch-wise reweighting).
    """

    uses_target: ClassVar[bool] = False

    def __call__(self, value: float, memory: Memory, observation: Observation) -> tuple[float, Memory]:
        if observation.num_epochs < 2:
            raise ValueError(
                f"the epoch law needs a run of 2 epochs or more, got {observation.num_epochs}: raise num_train_epochs "
                "or max_steps, or use the stage law"
            )
        epochs_done = math.floor(observation.epoch + 1e-6)  # the trainer counts epochs in floating point
        return min(1.0, epochs_done / (observation.num_epochs - 1)), memory
