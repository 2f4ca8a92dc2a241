"""Replace wrong completions by stored solutions where nearly all are wrong."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_number
from ..rules.tokens import is_correct
from .rule import COMPLETIONS, RolloutRule


@dataclass(frozen=True)
class OfflineInjection(RolloutRule):
    r"""
    Replace wrong completions by stored solutions where nearly all are wrong.

    In a group whose share of correct completions is at most \\( \alpha \\) = `accuracy`, the stored correct solutions
    of the problem take the places of wrong completions, as many as there are of both. Log-probs, rewards and
    advantages are those of the new group. The loss term `offline_shaping` and the weight `sampled_only` train on them
    as published: `entropy_control offline_injection` sets all three.

    Args:
        column (`str`, *optional*, defaults to `"solutions"`):
            Column of the dataset: a solution, or a list of them, as the policy should write it. One that is longer
            than `max_completion_length` is passed over; an empty list is fine.
        accuracy (`float`, *optional*, defaults to `0.125`):
            \\( \alpha \in [0, 1] \\).
        most (`int`, *optional*):
            Completions that are replaced in a group, at most; by default as many as there are solutions.

    Raises `ValueError` for a parameter out of range.

    Reference: [Dissecting Long-CoT Reasoning Models](https://huggingface.co/papers/2506.04913), 2025 (offline sample
    injection).
    """

    origin: ClassVar[str] = "code"
    acts: ClassVar[frozenset[str]] = frozenset({COMPLETIONS})

    column: str = "solutions"
    accuracy: float = 0.125
    most: int | None = None

    def __post_init__(self):
        check_number("accuracy", self.accuracy, low=0.0, high=1.0)
        if self.most is not None and (isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1):
            raise ValueError(f"most must be a whole number >= 1, got {self.most!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def replace(self, rewards: Tensor) -> Tensor:
        correct = is_correct(rewards)
        wrong = ~correct & (correct.float().mean(1, keepdim=True) <= self.accuracy)
        return wrong if self.most is None else wrong & (wrong.cumsum(1) <= self.most)
