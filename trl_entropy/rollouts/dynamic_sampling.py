"""Replace groups whose rewards are all equal by newly sampled ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rules.tokens import is_correct
from .rule import GROUPS, RolloutRule


@dataclass(frozen=True)
class DynamicSampling(RolloutRule):
    r"""
    Replace groups whose rewards are all equal by newly sampled ones.

    A group is kept if \\( \max_i R_i > \min_i R_i \\), with \\( R \\) as `by` says. What is missing is sampled again
    from further problems, as many as the share of kept groups so far makes likely to be enough, until the batch is
    full or `max_rounds` are used up; then groups that were not kept fill it, so that its size stays.

    Args:
        max_rounds (`int`, *optional*, defaults to `4`):
            Further rounds of sampling for a rollout batch, at least 0.
        by (`str`, *optional*, defaults to `"reward"`):
            "reward" is the weighted sum of all rewards, with which the advantages of a group that is not kept are 0.
            "correct" is 1 where that sum is above 0.5, else 0. Any other is the name of one reward function: the
            released scripts of DAPO take the accuracy, and have a penalty for length beside it.

    Raises `ValueError` for another number of rounds, and if `by` is not a name.

    Reference: [DAPO](https://huggingface.co/papers/2503.14476), 2025 (dynamic sampling). How many to sample again, and
    what fills the batch in the end, is ours.
    """

    acts: ClassVar[frozenset[str]] = frozenset({GROUPS})

    max_rounds: int = 4
    by: str = "reward"

    def __post_init__(self):
        if isinstance(self.max_rounds, bool) or not isinstance(self.max_rounds, int) or self.max_rounds < 0:
            raise ValueError(f"max_rounds must be a whole number >= 0, got {self.max_rounds!r}")
        if not isinstance(self.by, str) or not self.by:
            raise ValueError(f"by must be 'reward', 'correct' or the name of a reward function, got {self.by!r}")

    @property
    def rounds(self) -> int:
        return self.max_rounds

    @property
    def reward_func(self) -> str | None:
        return None if self.by in ("reward", "correct") else self.by

    def keep(self, rewards: Tensor) -> Tensor:
        without = rewards.isnan()  # a completion without a reward tells nothing
        values = is_correct(rewards).float() if self.by == "correct" else rewards
        highest = torch.where(without, -torch.inf, values).amax(1)
        return highest > torch.where(without, torch.inf, values).amin(1)
