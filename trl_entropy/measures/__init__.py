"""Measures of training: sums over tokens, over all micro-batches and ranks of an optimizer step."""

from .contexts import contexts
from .log import Log
from .means import Means
from .pass_at_k import pass_at_k
from .rules import WHY_KNOBS, Idle
from .settling import Settling, settling
from .step import LEVELS, Slopes, StepMeasures
from .surrogate import surrogate_slopes


__all__ = [
    "LEVELS",
    "WHY_KNOBS",
    "Idle",
    "Log",
    "Means",
    "Settling",
    "Slopes",
    "StepMeasures",
    "contexts",
    "pass_at_k",
    "settling",
    "surrogate_slopes",
]
