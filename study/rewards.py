"""A reward that knows nothing."""

import random


def coin(completions: list, **kwargs) -> list[float]:
    """1 or 0 by chance, whatever the completion says; from Python's generator, which the trainer seeds."""
    return [float(random.random() < 0.5) for _ in completions]
