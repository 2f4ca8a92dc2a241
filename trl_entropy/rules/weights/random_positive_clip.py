"""Drop a random share of the tokens with positive advantage."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class RandomPositiveClip(Rule):
    r"""
    Drop a random share of the tokens with positive advantage.

    $$
    w_t = 0 \text{ if } \hat A_t > 0 \text{ and } u_t < \rho, \quad 1 \text{ otherwise}, \qquad u_t \sim U[0, 1)
    $$

    with \\( \rho \\) = `share`. This is the paper's control for Clip-Cov, which picks such tokens by covariance:
    random ones do about as well. Averaged over \\( u \\) it equals [`~weights.Sign`] with
    \\( \lambda_+ = 1 - \rho \\). Each optimizer step draws again. A weight of 0 keeps the token in the denominator of
    the loss.

    Args:
        share (`float`, *optional*, defaults to `0.1`):
            \\( \rho \in [0, 1] \\), the share of the positive tokens that is dropped. The default is ours: the paper
            calls its share small, and we could not find the number.

    Raises `ValueError` for a share out of range.

    Reference: Jin et al., [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025 (Rand-Pos-Clip).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"completions"})

    share: float = knob(0.1, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        dropped = (tokens.advantages > 0) & (tokens.noise() < self.share)
        return torch.where(dropped, 0.0, torch.ones_like(tokens.logps))
