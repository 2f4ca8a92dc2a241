"""What is measured while training: sums over tokens, taken over all micro-batches and ranks of an optimizer step."""

from .means import Means
from .pass_at_k import pass_at_k
from .settling import Settling, settling
from .step import LEVELS, Slopes, StepMeasures
from .surrogate import CLIPPED_LOSSES, surrogate_slopes


__all__ = [
    "CLIPPED_LOSSES",
    "LEVELS",
    "Means",
    "Settling",
    "Slopes",
    "StepMeasures",
    "pass_at_k",
    "settling",
    "surrogate_slopes",
]
