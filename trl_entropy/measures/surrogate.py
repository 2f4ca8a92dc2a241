"""Measure how hard the tokens with either sign pull on the policy."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..rules.tokens import Tokens
from .means import Values


def surrogate_slopes(tokens: Tokens, effective: Tensor, delta: float | None = None) -> Tensor:
    r"""
    `(B, T)`: \\( g_t \\), the derivative of TRL's surrogate,
    \\( \min(\min(r_t, \delta) \, A'_t, \mathrm{clip}(r_t) \, A'_t) \\), by \\( \log \pi_\theta(y_t) \\): it is
    \\( r_t A'_t \\), or 0 where a bound has stopped the gradient.

    Args:
        effective (`torch.Tensor`):
            `(B, T)`: the effective advantages \\( A' \\), which the loss uses.
        delta (`float`, *optional*):
            \\( \delta \\), TRL's flag; `None` sets no such bound.
    """
    low, high = tokens.clip_range
    ratios = tokens.ratios
    slopes, clipped = ratios * effective, ratios.clamp(1 - low, 1 + high) * effective
    if delta is None:
        return slopes.masked_fill(slopes > clipped, 0)
    return slopes.masked_fill(slopes != torch.minimum(ratios.clamp(max=delta) * effective, clipped), 0)


POSITIVE, NEGATIVE = "gradient_mass/positive", "gradient_mass/negative"


def gradient_mass(tokens: Tokens, slopes: Tensor) -> Values:
    r"""
    \\( |g_t| \, (1 - \pi_\theta(y_t)) \\) over all trained tokens, by the sign of \\( g_t \\).

    With \\( g_t \\) from [`surrogate_slopes`], this is the size of the surrogate's derivative by the logit of the
    sampled token (at temperature 1). The values of the two signs add up to the mean over all trained tokens.
    """
    pull = slopes * tokens.logps.expm1()  # with the opposite sign
    negative = pull.clamp(min=0)
    return {POSITIVE: (negative - pull, tokens.mask), NEGATIVE: (negative, tokens.mask)}


def positive_share(means: Mapping[str, float]) -> dict[str, float]:
    """The share of the positive tokens in the mass of an optimizer step; empty if no token pulls."""
    whole = means.get(POSITIVE, 0.0) + means.get(NEGATIVE, 0.0)
    return {"gradient_mass/positive_share": means[POSITIVE] / whole} if whole > 0 else {}
