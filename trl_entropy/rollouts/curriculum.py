"""Train on the problems in stages, from the lowest value of a column to the highest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..checks import check_number, check_whole_number
from .rule import PROBLEMS, RolloutRule


@dataclass(frozen=True)
class Curriculum(RolloutRule):
    r"""
    Train on the problems in stages, from the lowest value of a column to the highest.

    The problems are sorted by `column` and split into `count` stages of equal size (the first stages have one more if
    the sizes cannot be equal). Stage \\( s \\) of \\( S \\), counted from 0, lasts from \\( s / S \\) to
    \\( (s + 1) / S \\) of the run's steps, or for `epochs` passes over its problems if that is set. The last stage
    lasts to the end of the run.

    Args:
        column (`str`, *optional*, defaults to `"semantic_entropy"`):
            Column of numbers that measure how hard a problem is, by default the entropy in nats of the starting
            policy's answers, from `trl-entropy data semantic-entropy`.
        count (`int`, *optional*, defaults to `2`):
            Number of stages, at least 1 (the released scripts have 2).
        epochs (`float`, *optional*):
            Passes over a stage before the next one (the released scripts have 5).

    Raises `ValueError` for a parameter out of range, or a column in which a value is missing or not a number.

    Reference: [SENT](https://huggingface.co/papers/2512.04359), 2025 (its curriculum; its loss term is `sent`).
    """

    acts: ClassVar[frozenset[str]] = frozenset({PROBLEMS})

    column: str = "semantic_entropy"
    count: int = 2
    epochs: float | None = None

    def __post_init__(self):
        check_whole_number("count", self.count)
        if self.epochs is not None:
            check_number("epochs", self.epochs, low=0.0)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def stages(self, values: Callable[[str], Sequence], count: int) -> list[list[int]]:
        numbers = values(self.column)
        for place, number in enumerate(numbers):
            try:
                check_number(f"{self.column} of problem {place}", number)
            except ValueError as error:
                raise ValueError(f"{error}: a curriculum sorts by it") from error
        if count < self.count:
            raise ValueError(
                f"count={self.count} stages need at least that many problems, but the dataset has {count}"
            )
        order = sorted(range(count), key=lambda place: numbers[place])
        size, more = divmod(count, self.count)
        ends = [stage * size + min(stage, more) for stage in range(self.count + 1)]
        return [order[start:end] for start, end in zip(ends, ends[1:], strict=False)]

    def stage(self, current: int, passes: float, progress: float) -> int:
        if self.epochs is None:
            return max(current, min(int(progress * self.count), self.count - 1))
        return min(current + (passes >= self.epochs), self.count - 1)
