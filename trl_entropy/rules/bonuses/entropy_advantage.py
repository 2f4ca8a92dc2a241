"""Add a token's entropy to its advantage, up to a share of the advantage."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class EntropyAdvantage(Rule):
    r"""
    Add a token's entropy to its advantage, up to a share of the advantage.

    $$
    b_t = \min(\alpha H_t, \; |\hat A_t| / \kappa)
    $$

    The entropy is detached, so it has no gradient, unlike an entropy bonus in the loss. Tokens of high entropy gain
    more, whether the completion was right or wrong. Since \\( \kappa \ge 1 \\), the advantage keeps its sign.

    Args:
        alpha (`float`, *optional*, defaults to `0.4`):
            \\( \alpha \ge 0 \\), advantage per nat (the paper's value for GRPO; 0.1 for PPO).
        kappa (`float`, *optional*, defaults to `2.0`):
            \\( \kappa \ge 1 \\); the bonus is at most \\( 1 / \kappa \\) of the advantage (the paper's value; the
            paper requires \\( \kappa > 1 \\); at 1 a negative advantage may become 0).

    Raises `ValueError` for a value out of range.

    Reference: Cheng et al., [Reasoning with Exploration: An Entropy
    Perspective](https://huggingface.co/papers/2506.14758), 2025.
    """

    alpha: float = knob(0.4, low=0.0)
    kappa: float = knob(2.0, low=1.0)

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        bonus = torch.minimum(self.alpha * tokens.entropies, tokens.advantages.abs() / self.kappa)
        return bonus.to(tokens.logps.dtype)
