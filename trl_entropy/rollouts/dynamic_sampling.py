"""Replace groups whose rewards are all equal by newly sampled ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import check_whole_number
from ..rules.tokens import is_correct
from .rule import GROUPS, RolloutRule


@dataclass(frozen=True)
class DynamicSampling(RolloutRule):
    r"""
    Replace groups whose rewards are all equal by newly sampled ones.

    A group is kept if \\( \max_i R_i > \min_i R_i \\), with \\( R \\) chosen by `by`. Missing groups are sampled from
    further problems, as many as should be enough at the share kept so far, until the batch is full or `max_rounds` are
    used up. Then groups that were not kept fill the batch, so its size stays the same.

    Args:
        max_rounds (`int`, *optional*, defaults to `4`):
            Additional rounds of sampling per rollout batch, at least 0.
        by (`str`, *optional*, defaults to `"reward"`):
            "reward" is the weighted sum of all rewards; with it, the advantages in a group that is not kept are 0.
            "correct" is 1 where that sum is above 0.5, else 0. Any other value is the name of one reward function:
            DAPO's released scripts use the accuracy, and have a length penalty beside it.

    Raises `ValueError` for an invalid number of rounds, or a `by` that is not a name.

    Reference: [DAPO](https://huggingface.co/papers/2503.14476), 2025 (dynamic sampling). The number of groups to
    sample again, and the groups that fill the batch at the end, are our choice.
    """

    acts: ClassVar[frozenset[str]] = frozenset({GROUPS})

    max_rounds: int = 4
    by: str = "reward"

    def __post_init__(self):
        check_whole_number("max_rounds", self.max_rounds, 0)
        if not isinstance(self.by, str) or not self.by:
            raise ValueError(f"by must be 'reward', 'correct' or the name of a reward function, got {self.by!r}")

    @property
    def rounds(self) -> int:
        return self.max_rounds

    @property
    def reward_func(self) -> str | None:
        return None if self.by in ("reward", "correct") else self.by

    def keep(self, rewards: Tensor) -> Tensor:
        without = rewards.isnan()  # a completion without a reward says nothing
        values = is_correct(rewards).float() if self.by == "correct" else rewards
        highest = torch.where(without, -torch.inf, values).amax(1)
        return highest > torch.where(without, torch.inf, values).amin(1)
