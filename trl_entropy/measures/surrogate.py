"""How hard tokens of either sign pull at the policy."""

import torch
from torch import Tensor

from ..rules.tokens import Tokens
from .means import Values


def surrogate_slopes(tokens: Tokens, effective: Tensor, delta: float | None = None) -> Tensor:
    r"""
    `(B, T)`: \\( g_t \\), the derivative of TRL's surrogate
    \\( \min(\min(r_t, \delta) \, A'_t, \mathrm{clip}(r_t) \, A'_t) \\) by \\( \log \pi_\theta(y_t) \\):
    \\( r_t A'_t \\), or 0 where a bound has stopped it.

    Args:
        effective (`torch.Tensor`):
            `(B, T)`: the effective advantages \\( A' \\), those in the loss.
        delta (`float`, *optional*):
            \\( \delta \\), TRL's flag; no such bound if `None`.
    """
    low, high = tokens.clip_range
    ratios = tokens.ratios
    slopes, clipped = ratios * effective, ratios.clamp(1 - low, 1 + high) * effective
    if delta is None:
        return slopes.masked_fill(slopes > clipped, 0)
    return slopes.masked_fill(slopes != torch.minimum(ratios.clamp(max=delta) * effective, clipped), 0)


def gradient_mass(tokens: Tokens, slopes: Tensor) -> Values:
    r"""
    \\( |g_t| \, (1 - \pi_\theta(y_t)) \\) over all trained tokens, by the sign of \\( g_t \\).

    With \\( g_t \\) of [`surrogate_slopes`] that is the size of the surrogate's derivative by the logit of the sampled
    token (at temperature 1). The two signs add up to the mean over all trained tokens.
    """
    pull = slopes * tokens.logps.expm1()  # of the other sign
    negative = pull.clamp(min=0)
    return {
        "gradient_mass/positive": (negative - pull, tokens.mask),
        "gradient_mass/negative": (negative, tokens.mask),
    }
