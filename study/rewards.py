"""Rewards that know nothing, or only sometimes."""

import random
from collections.abc import Callable

from trl_entropy.rewards import math_verify_reward


def coin(completions: list, **kwargs) -> list[float]:
    """1 or 0 by chance, whatever the completion says; from Python's generator, which the trainer seeds."""
    return [float(random.random() < 0.5) for _ in completions]


def noisy(percent: int) -> Callable:
    """The true reward, but for each completion a coin instead with so many percent of probability."""

    def reward(completions: list, **kwargs) -> list[float]:
        true = math_verify_reward(completions=completions, **kwargs)
        return [
            by_chance if random.random() < percent / 100 else right
            for right, by_chance in zip(true, coin(completions), strict=True)
        ]

    reward.__name__ = f"noise_{percent}"
    return reward


noise_0, noise_25, noise_50, noise_75, noise_100 = map(noisy, (0, 25, 50, 75, 100))
