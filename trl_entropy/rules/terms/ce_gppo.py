"""Restore a bounded gradient to clipped tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class CeGPPO(Rule):
    r"""
    Restore a bounded gradient to clipped tokens.

    $$
    t_t = -\beta_- \, (1 - \epsilon_{\text{low}}) \, \frac{r_t}{\mathrm{sg}(r_t)} \, \hat A_t
    \text{ if } \hat A_t < 0, r_t < 1 - \epsilon_{\text{low}}, \qquad
    -\beta_+ \, (1 + \epsilon_{\text{high}}) \, \frac{r_t}{\mathrm{sg}(r_t)} \, \hat A_t
    \text{ if } \hat A_t > 0, r_t > 1 + \epsilon_{\text{high}}
    $$

    and 0 elsewhere, with \\( r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t) \\), \\( \mathrm{sg} \\) for stop-gradient,
    and TRL's clip range. A ratio divided by itself is 1, so the term's value is a constant and only its gradient
    matters: it is that of a token at the edge of the clip range. Strictly on-policy, nothing is clipped and the term
    is 0.

    Args:
        beta_low (`float`, *optional*, defaults to `0.75`):
            \\( \beta_- \ge 0 \\), the strength below the range (the paper's value for 7B; 0.5 for 1.5B).
        beta_high (`float`, *optional*, defaults to `1.0`):
            \\( \beta_+ \ge 0 \\), the strength above the range (the paper's value).

    Raises `ValueError` for a value out of range.

    Reference: [CE-GPPO: Controlling Entropy via Gradient-Preserving Clipping Policy Optimization in Reinforcement
    Learning](https://huggingface.co/papers/2509.20712), 2025.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"clipped"})
    follows_loss_type: ClassVar[bool] = True

    beta_low: float = knob(0.75, low=0.0)
    beta_high: float = knob(1.0, low=0.0)

    @property
    def neutral(self) -> bool:
        return self.beta_low == self.beta_high == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        low, high = tokens.clip_range
        one = torch.exp(tokens.logps - tokens.logps.detach())  # it has the gradient of the log-probability
        strength = torch.where(
            tokens.advantages > 0, self.beta_high * (1 + high) * one, self.beta_low * (1 - low) * one
        )
        return torch.where(tokens.clipped, -strength * tokens.advantages, 0.0)
