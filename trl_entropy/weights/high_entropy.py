"""Train only on the tokens of highest entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Rule, Tokens, knob


@dataclass(frozen=True)
class HighEntropy(Rule):
    r"""
    Train only on the tokens of highest entropy.

    $$
    w_t = \mathbb{1}[H_t \ge Q_{1-\rho}(H)]
    $$

    with \\( Q \\) the quantile over the pool. TRL has this rule as `top_entropy_quantile`, which gives the same loss
    bit for bit: set that. It stands here as the reference against which the seam is tested, and as a 0/1 weight that
    multiplies with the others. A weight of 0 keeps the token in the denominator of the loss.

    Args:
        fraction (`float`, *optional*, defaults to `0.2`):
            \\( \rho \in [0, 1] \\), the share of tokens kept; `1.0` keeps all.

    Raises `ValueError` for a fraction out of range.

    Reference: Wang et al., [Beyond the 80/20 Rule](https://huggingface.co/papers/2506.01939), 2025.
    """

    fraction: float = knob(0.2, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.fraction == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        pooled = tokens.pool(tokens.entropies[tokens.mask].float())
        if pooled.numel() == 0:  # nothing is trained on anywhere
            return torch.zeros_like(tokens.entropies)
        return (tokens.entropies.float() >= torch.quantile(pooled, 1 - self.fraction)).to(tokens.entropies.dtype)
