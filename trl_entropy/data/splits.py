r"""
Numbers to be written as a sum of two positive numbers: `24=` asks for `\boxed{7+17}`.

Any of a number's n - 1 splits is right, so the problems can be solved in many ways; the answer is judged by its value.
"""

import random

from datasets import Dataset


NUMBERS = range(10, 200)
HELD_OUT = 90  # numbers that neither the supervised nor the reinforcement learning ever sees
TRAIN = 16  # few enough that a policy which gives up its variety fits them and fails on other numbers


def train_problems() -> Dataset:
    """The problems for reinforcement learning."""
    return _problems(known_numbers()[:TRAIN])


def held_out_problems() -> Dataset:
    """The problems for evaluation: other numbers of the same range."""
    return _problems(_shuffled_numbers()[:HELD_OUT])


def known_numbers() -> list[int]:
    """The numbers that are not held out, which the embedded policy was supervised on."""
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
    # `number` and `solutions` are for rollout rules: something to sort by, and what the policy might have written
    columns = {"number": number, "solutions": [even_completion(number)]}
    return {"prompt": prompt_of(number), "solution": f"${number}$", **columns}
