"""An environment for the embedded policy: sums, with another attempt after the value of a wrong sum is shown."""

import re
from collections.abc import Mapping

from datasets import Dataset

from ..data import train_problems


SUM = re.compile(r"\\boxed\{(\d+(?:\+\d+)*)\}")


class Arithmetic:
    r"""
    The embedded problems with feedback; ours.

    `24=` asks for a sum such as `\boxed{7+17}`. The reward is 1 for a sum with that value, which ends the episode, and
    -1 for anything else. After a wrong sum the environment shows its value and the problem again: `=2524=`.

    Args:
        attempts (`int`, *optional*, defaults to `2`):
            Number of attempts per problem.
    """

    def __init__(self, attempts: int = 2):
        self.attempts = attempts

    @staticmethod
    def dataset() -> Dataset:
        """The problems."""
        return train_problems()

    def reset(self, row: Mapping) -> str:
        self.problem, self.value, self.left = row["prompt"], int(row["solution"].strip("$")), self.attempts
        return self.problem

    def step(self, text: str) -> tuple[str, float, bool]:
        found = SUM.findall(text)
        value = sum(map(int, found[-1].split("+"))) if found else None
        self.left -= 1
        told = f"={'' if value is None else value}{self.problem}"
        return told, 1.0 if value == self.value else -1.0, value == self.value or self.left == 0
