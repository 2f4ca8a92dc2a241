"""What is measured while training: sums over tokens, taken over all micro-batches and ranks of an optimizer step."""

from .entropy import entropy_by_sign
from .means import Means
from .pass_at_k import pass_at_k
from .rules import IdleRules, rule_means


__all__ = ["IdleRules", "Means", "entropy_by_sign", "pass_at_k", "rule_means"]
