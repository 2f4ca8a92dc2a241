r"""
Embedded problems: write a number as a sum of two positive numbers. `24=` may be answered by `\boxed{7+17}`.

Each of the n - 1 splits of a number n is right, so there are many ways to solve a problem. An answer is judged by its
value.
"""

import random

from datasets import Dataset


NUMBERS = range(10, 200)
HELD_OUT = 90  # numbers that neither the supervised nor the reinforcement learning ever sees
TRAIN = 16  # so few that a policy which loses its variety fits them and fails on other numbers


def train_problems() -> Dataset:
    """The problems for reinforcement learning."""
    return _problems(known_numbers()[:TRAIN])


def held_out_problems() -> Dataset:
    """The problems for evaluation: other numbers from the same range."""
    return _problems(_shuffled_numbers()[:HELD_OUT])


def known_numbers() -> list[int]:
    """The numbers that are not held out, on which the embedded policy was supervised."""
    return _shuffled_numbers()[HELD_OUT:]


def prompt_of(number: int) -> str:
    """The number as a prompt."""
    return f"{number}="


def random_completion(number: int, rng: random.Random) -> str:
    """One of the number's splits, all equally likely."""
    first = rng.randint(1, number - 1)
    return f"\\boxed{{{first}+{number - first}}}"


def even_completion(number: int) -> str:
    """The number's split into halves."""
    first = number // 2
    return f"\\boxed{{{first}+{number - first}}}"


def _shuffled_numbers() -> list[int]:
    numbers = list(NUMBERS)
    random.Random(0).shuffle(numbers)
    return numbers


def _problems(numbers: list[int]) -> Dataset:
    return Dataset.from_list([problem_of(number) for number in numbers])


def problem_of(number: int) -> dict:
    """The row of a number."""
    # `number` and `solutions` are for rollout rules: a value to sort by, and possible completions of the policy
    columns = {"number": number, "solutions": [even_completion(number)]}
    return {"prompt": prompt_of(number), "solution": f"${number}$", **columns}
