"""Weight right and wrong completions by how hard their prompt is."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class AsymGRPO(Rule):
    r"""
    Weight right and wrong completions by how hard their prompt is.

    $$
    w_t = \Big(\frac{1 - p}{p}\Big)^{\beta_+ - 1/2} \text{ if } \hat A_t > 0, \quad
    \Big(\frac{p}{1 - p}\Big)^{\beta_- - 1/2} \text{ if } \hat A_t < 0, \quad 1 \text{ otherwise}
    $$

    with \\( p \\) the share of right completions in the group, that is, with a reward above `threshold`. For a binary
    reward, GRPO's advantage is \\( ((1 - p)/p)^{1/2} \\) for right completions and \\( -(p/(1 - p))^{1/2} \\) for
    wrong ones, so the weights set the exponents to \\( \beta_+ \\) and \\( \beta_- \\). With an exponent above 1/2, a
    right completion counts more the harder its prompt is, and a wrong one the easier it is; with 0 all prompts count
    the same. This holds with TRL's `scale_rewards="group"`. The weight is 1 if all or none are right, or if there is
    no reward at all. Completions without a reward do not count.

    Args:
        beta_pos (`float`, *optional*, defaults to `0.9`):
            \\( \beta_+ \ge 0 \\), the exponent for positive advantages (the paper's value; `0.5` is GRPO).
        beta_neg (`float`, *optional*, defaults to `0.4`):
            \\( \beta_- \ge 0 \\), the exponent for negative advantages (the paper's value; `0.5` is GRPO).
        threshold (`float`, *optional*, defaults to `0.5`):
            Reward above which a completion counts as right. Ours: the paper's rewards are 0 and 1.

    Raises `ValueError` for a value out of range.

    Reference: [Asymmetric Advantage Modulation Calibrates Entropy Dynamics in
    RLVR](https://huggingface.co/papers/2604.04894), 2026 (AsymGRPO).
    """

    token_selective: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"group_rewards"})

    beta_pos: float = knob(0.9, low=0.0)
    beta_neg: float = knob(0.4, low=0.0)
    threshold: float = knob(0.5)

    @property
    def neutral(self) -> bool:
        return self.beta_pos == self.beta_neg == 0.5

    def __call__(self, tokens: Tokens) -> Tensor:
        rewards = tokens.group_rewards
        right = (rewards > self.threshold).sum(-1, keepdim=True)  # false for NaN
        wrong = (rewards <= self.threshold).sum(-1, keepdim=True)
        odds = torch.where((right > 0) & (wrong > 0), wrong / right.clamp(min=1), 1.0)
        weights = torch.where(tokens.advantages > 0, odds ** (self.beta_pos - 0.5), 1.0)
        weights = torch.where(tokens.advantages < 0, odds ** (0.5 - self.beta_neg), weights)
        return weights.to(tokens.logps.dtype)
