"""What is measured while training: sums over tokens, taken over all micro-batches and ranks of an optimizer step."""

from .entropy import entropy_by_sign
from .means import Means
from .pass_at_k import pass_at_k


__all__ = ["Means", "entropy_by_sign", "pass_at_k"]
