"""Sample further problems in place of groups whose rewards are all equal."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .rule import GROUPS, RolloutRule


@dataclass(frozen=True)
class DynamicSampling(RolloutRule):
    r"""
    Sample further problems in place of groups whose rewards are all equal.

    A group is kept if \\( \max_i R_i > \min_i R_i \\): the advantages of the others are 0. What is missing is sampled
    again from further problems, as many as the share of kept groups so far makes likely to be enough, until the batch
    is full or `max_rounds` are used up; then groups with equal rewards fill it, so that its size stays.

    Args:
        max_rounds (`int`, *optional*, defaults to `4`):
            Further rounds of sampling for a rollout batch, at least 0.

    Raises `ValueError` for another number of rounds.

    Reference: [DAPO](https://huggingface.co/papers/2503.14476), 2025 (dynamic sampling). How many to sample again, and
    what fills the batch in the end, is ours.
    """

    acts: ClassVar[frozenset[str]] = frozenset({GROUPS})

    max_rounds: int = 4

    def __post_init__(self):
        if isinstance(self.max_rounds, bool) or not isinstance(self.max_rounds, int) or self.max_rounds < 0:
            raise ValueError(f"max_rounds must be a whole number >= 0, got {self.max_rounds!r}")

    @property
    def rounds(self) -> int:
        return self.max_rounds

    def keep(self, rewards: Tensor) -> Tensor:
        # a completion without a reward tells nothing
        highest = torch.where(rewards.isnan(), -torch.inf, rewards).amax(1)
        return highest > torch.where(rewards.isnan(), torch.inf, rewards).amin(1)
