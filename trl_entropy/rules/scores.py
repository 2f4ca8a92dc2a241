"""Scores of tokens that several rules share, and selections of tokens by score."""

from collections.abc import Callable

import torch
from torch import Tensor

from .pool import Pool
from .tokens import Tokens


# The `epsilon` and `epsilon_high` with which TRL clips nothing below, and only ratios above 20: verl's cap on ratios
WITHOUT_CLIP = (1.0, 19.0)


def sampler_logps(tokens: Tokens) -> Tensor:
    """
    `(B, T)` float32: log-probs under the policy that sampled. They are the engine's log-probs where TRL has them, else
    those of the old policy, from which TRL's own generation samples.
    """
    old, said = tokens.old_logps.float(), tokens.sampling_logps
    return old if said is None else torch.where(said.isnan(), old, said.float())


def discriminator(tokens: Tokens) -> Tensor:
    r"""\\( S_t \\), `(B, T)`: the entropy that an update on a token costs, to first order, without its expectation."""
    logps = tokens.logps.float()
    return logps.exp() * (tokens.entropies.float() + logps)


def excess(tokens: Tokens) -> Tensor:
    r"""\\( D_t \\), `(B, T)`: the discriminator of the sampled token minus its expectation."""
    return discriminator(tokens) - tokens.expected_discriminator.float()


def covariances(pool: Pool, among: Callable | None = None) -> Callable:
    r"""
    The function of tokens \\( (\hat A_t - \mathrm{mean} \, \hat A) (\log \pi_t - \mathrm{mean} \, \log \pi) \\).

    Args:
        pool ([`~pool.Pool`]):
            The tokens that the means are taken over.
        among (`Callable[[Tokens], Tensor]`, *optional*):
            Bool `(B, T)`: the tokens that count in the means.
    """
    advantage, logp = (
        pool.mean(lambda batch: batch.advantages, among),
        pool.mean(lambda batch: batch.logps, among),
    )
    return lambda batch: (batch.advantages.float() - advantage) * (batch.logps.detach().float() - logp)


def first_of_rows(tokens: Tokens, values: Tensor, number: Tensor) -> Tensor:
    """Bool `(B, T)`: the tokens with the smallest values, `number` `(B, 1)` per completion."""
    ranks = torch.where(tokens.mask, values, torch.inf).sort(dim=-1, stable=True).indices.argsort(-1)
    return tokens.mask & (ranks < number)


def row_quantile(tokens: Tokens, values: Tensor, q: float) -> Tensor:
    """`(B, 1)`, detached: the quantile over a completion's trained tokens, interpolated linearly; NaN without any."""
    ordered = torch.where(tokens.mask, values.detach(), torch.inf).sort(dim=-1).values
    place = q * (tokens.mask.sum(-1, keepdim=True) - 1).clamp(min=0).float()
    low, high = (ordered.gather(-1, at.long()) for at in (place.floor(), place.ceil()))
    return low + (place - place.floor()).to(low.dtype) * (high - low)


def weighted_by(tokens: Tokens, values: Tensor) -> Tensor:
    """`(B, T)`: the values divided by their mean in the completion; 0 where the mean is 0."""
    mean = tokens.mean_over_row(values).unsqueeze(1)
    return torch.where(mean > 0, values / torch.where(mean > 0, mean, 1.0), 0.0)


def check_sides(sides: str) -> None:
    """Raise `ValueError` unless `sides` is known."""
    if sides not in ("negative_low", "both"):
        raise ValueError(f"sides must be 'negative_low' or 'both', got {sides!r}")


def without_outliers(tokens: Tokens, deviation: Callable, mu: float, max_share: float, sides: str) -> Tensor:
    """`(B, T)`: 0 where the deviation, a function of tokens, exceeds `mu` of its standard deviations, else 1."""
    std = tokens.pool.std(deviation)

    def distance(batch: Tokens) -> Tensor:
        return deviation(batch).abs() if sides == "both" else -deviation(batch)

    def outliers(batch: Tokens) -> Tensor:
        eligible = batch.advantages != 0 if sides == "both" else batch.advantages < 0
        return eligible & (distance(batch) > mu * std) & (std > 1e-12)  # the released code's guard against rounding

    dropped = tokens.pool.top(tokens, distance, tokens.pool.share(max_share), outliers)
    return torch.where(dropped, 0.0, torch.ones_like(tokens.logps))
