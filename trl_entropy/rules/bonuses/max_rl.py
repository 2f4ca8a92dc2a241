"""Scale the advantage by the mean reward of the group instead of its deviation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class MaxRL(Rule):
    r"""
    Scale the advantage by the mean reward of the group instead of its deviation.

    $$
    b_t = s \, (A^*_t - \hat A_t), \qquad A^*_t = \frac{R - \mathrm{mean}(R)}{\mathrm{mean}(R) + 10^{-6}}
    $$

    with \\( R \\) the rewards of the group and \\( s \\) = `strength`. For rewards 0 and 1 and a share \\( p \\) of
    right completions, the advantage is \\( (1 - p) / p \\) for right ones and -1 for wrong ones. GRPO has
    \\( ((1 - p) / p)^{1/2} \\) and \\( -(p / (1 - p))^{1/2} \\), so hard prompts count more here. According to the
    paper, the larger the group, the closer this is to the gradient of \\( \log p \\). The advantage is 0 if the mean
    is not above 0, and for completions without a reward.

    Args:
        strength (`float`, *optional*, defaults to `1.0`):
            \\( s \in [0, 1] \\); 1 is the paper's advantage, 0 TRL's. The parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: Tajwar et al., [Maximum Likelihood Reinforcement Learning](https://huggingface.co/papers/2602.02710),
    2026 (MaxRL).
    """

    token_selective: ClassVar[bool] = False
    replaces_advantage: ClassVar[bool] = True
    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"group_rewards"})

    strength: float = knob(1.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.strength == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        rewards, mean = tokens.rewards.float().unsqueeze(1), tokens.group_rewards.float().nanmean(-1, keepdim=True)
        known = (mean > 0) & ~rewards.isnan()
        wanted = torch.where(known, (rewards - mean) / (mean + 1e-6), 0.0)
        return (self.strength * (wanted - tokens.advantages)).to(tokens.logps.dtype)
