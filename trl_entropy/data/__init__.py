"""The embedded problems and the policy that ships with the package, and where others are."""

from .files import EMBEDDED_POLICY
from .splits import held_out_problems, train_problems


__all__ = ["EMBEDDED_POLICY", "held_out_problems", "train_problems"]
