"""Replace wrong completions by stored solutions where nearly all are wrong."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_number, check_whole_number
from ..rules.tokens import is_correct
from .rule import COMPLETIONS, RolloutRule


@dataclass(frozen=True)
class OfflineInjection(RolloutRule):
    r"""
    Replace wrong completions by stored solutions where nearly all are wrong.

    In a group whose share of correct completions is at most \\( \alpha \\) = `accuracy`, the problem's stored correct
    solutions replace wrong completions, as many as there are of both. Log-probs, rewards and advantages are then those
    of the new group. To train on the solutions as published, add the loss term `offline_shaping` and the weight
    `sampled_only`: `entropy_control offline_injection` sets all three.

    Args:
        column (`str`, *optional*, defaults to `"solutions"`):
            Column of the dataset with a solution, or a list of solutions, as the policy should write them. Solutions
            longer than `max_completion_length` are skipped; an empty list is allowed.
        accuracy (`float`, *optional*, defaults to `0.125`):
            \\( \alpha \in [0, 1] \\), the largest share of correct completions.
        most (`int`, *optional*):
            Maximum number of completions to replace in a group; by default the number of solutions.

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
        if self.most is not None:
            check_whole_number("most", self.most)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def replace(self, rewards: Tensor) -> Tensor:
        correct = is_correct(rewards)
        wrong = ~correct & (correct.float().mean(1, keepdim=True) <= self.accuracy)
        return wrong if self.most is None else wrong & (wrong.cumsum(1) <= self.most)
