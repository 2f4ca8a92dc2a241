"""Weight tokens by the sign of their advantage."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class Sign(Rule):
    r"""
    Weight tokens by the sign of their advantage.

    $$
    w_t = \lambda_+ \text{ if } \hat A_t > 0, \quad \lambda_- \text{ if } \hat A_t < 0, \quad 1 \text{ otherwise}
    $$

    Tokens with positive advantage concentrate the policy, so \\( \lambda_+ < 1 \\) slows or stops the collapse of
    entropy. \\( \lambda_+ = 0 \\) trains on negative advantages only. A weight of 0 keeps the token in the denominator
    of the loss, as in the paper.

    Args:
        positive_advantage_coef (`float`, *optional*, defaults to `1.0`):
            \\( \lambda_+ \ge 0 \\), the loss weight of tokens with positive advantage.
        negative_advantage_coef (`float`, *optional*, defaults to `1.0`):
            \\( \lambda_- \ge 0 \\), the loss weight of tokens with negative advantage.

    Raises `ValueError` for a coefficient that is negative or not finite.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (Positive-Advantage Reweighting; the paper has
    \\( \lambda_- = 1 \\)).
    """

    token_selective: ClassVar[bool] = False

    positive_advantage_coef: float = knob(1.0, low=0.0, raises_entropy=False, flag=True)
    negative_advantage_coef: float = knob(1.0, low=0.0, raises_entropy=True, flag=True)

    @property
    def neutral(self) -> bool:
        return self.positive_advantage_coef == self.negative_advantage_coef == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        one = torch.ones_like(tokens.advantages)
        weights = torch.where(tokens.advantages > 0, self.positive_advantage_coef * one, one)
        return torch.where(tokens.advantages < 0, self.negative_advantage_coef * one, weights)
