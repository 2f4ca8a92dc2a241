"""Train on the problems in stages, from the lowest value of a column to the highest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..checks import check_number
from .rule import PROBLEMS, RolloutRule


@dataclass(frozen=True)
class Curriculum(RolloutRule):
    r"""
    Train on the problems in stages, from the lowest value of a column to the highest.

    The problems are sorted by `column` and split into `count` stages of equal size (the first ones have one more if
    they cannot be equal). Stage \\( s \\) of \\( S \\) takes the steps from \\( s / S \\) to \\( (s + 1) / S \\) of
    the run, or `epochs` passes over its problems if given; the last stage lasts to the end.

    Args:
        column (`str`, *optional*, defaults to `"semantic_entropy"`):
            Column of numbers: the entropy in nats of the answers that the starting policy gives to a problem,
            `trl-entropy data semantic-entropy`, or any other measure of how hard it is.
        count (`int`, *optional*, defaults to `2`):
            Number of stages, at least 1; 2 are the released scripts'.
        epochs (`float`, *optional*):
            Passes over a stage before the next; 5 in the released scripts.

    Raises `ValueError` for a parameter out of range, and for a column with values that are missing or no numbers.

    Reference: [SENT](https://huggingface.co/papers/2512.04359), 2025 (its curriculum; its loss term is `sent`).
    """

    acts: ClassVar[frozenset[str]] = frozenset({PROBLEMS})

    column: str = "semantic_entropy"
    count: int = 2
    epochs: float | None = None

    def __post_init__(self):
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"count must be a whole number >= 1, got {self.count!r}")
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
            raise ValueError(f"count={self.count} stages need as many problems, and the dataset has {count}")
        order = sorted(range(count), key=lambda place: numbers[place])
        size, more = divmod(count, self.count)
        ends = [stage * size + min(stage, more) for stage in range(self.count + 1)]
        return [order[start:end] for start, end in zip(ends, ends[1:], strict=False)]

    def stage(self, current: int, passes: float, progress: float) -> int:
        if self.epochs is None:
            return max(current, min(int(progress * self.count), self.count - 1))
        return min(current + (passes >= self.epochs), self.count - 1)
