"""The problems and the policy embedded in this package, and access to others."""

from .files import EMBEDDED_POLICY
from .splits import held_out_problems, train_problems


__all__ = ["EMBEDDED_POLICY", "held_out_problems", "train_problems"]
