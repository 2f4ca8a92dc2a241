"""The embedded problems and the policy that ships with the package."""

from pathlib import Path

from .splits import held_out_problems, train_problems


EMBEDDED_POLICY = Path(__file__).parent / "policy"

__all__ = ["EMBEDDED_POLICY", "held_out_problems", "train_problems"]
