"""Draw problems from the tasks of reasoning-gym, which are generated, not stored."""

import json
from collections.abc import Mapping

from datasets import Dataset

from ..rewards.reasoning_gym import task


PREFIX = "reasoning-gym:"
# Neighbouring seeds of a task share all problems but one
SEEDS_APART = 1_000_003


def draw_problems(
    name: str, settings: Mapping[str, object], seed: int, train_size: int, test_size: int = 0
) -> tuple[Dataset, Dataset]:
    """
    Draw problems to train on and problems to hold out from one task, without overlap.

    Columns: `prompt`, `solution` (empty if a problem has many) and `reasoning_gym`, from which
    [`~rewards.ReasoningGymReward`] finds the task's own scorer.

    Args:
        name (`str`):
            Name of the reasoning-gym task.
        settings (`Mapping[str, object]`):
            Settings of the task.
        seed (`int`):
            Seed of the draw.
        train_size (`int`):
            Number of problems to train on; some may be drawn twice.
        test_size (`int`, *optional*, defaults to `0`):
            Number of problems to hold out; all different.

    Raises `ValueError` for a wrong name or setting, or if the task has too few different problems.
    """
    drawn = 20 * (train_size + test_size)  # problems are made when read, so this costs nothing
    settings = {**settings, "seed": seed * SEEDS_APART, "size": drawn}
    items = task(name, settings)
    test: dict[str, dict[str, str]] = {}
    train: list[dict[str, str]] = []
    for index in range(drawn):
        if len(test) == test_size and len(train) == train_size:
            break
        item = items[index]
        origin = json.dumps({"task": name, "settings": settings, "index": index})
        row = {"prompt": item["question"], "solution": item["answer"] or "", "reasoning_gym": origin}
        if len(test) < test_size:
            test.setdefault(item["question"], row)
        elif item["question"] not in test:
            train.append(row)
    if len(test) < test_size or len(train) < train_size:
        raise ValueError(
            f"the task {name!r} of reasoning-gym has too few different problems to hold out {test_size}: hold out "
            "fewer, or widen the task's settings"
        )
    return Dataset.from_list(train), Dataset.from_list(list(test.values()))
