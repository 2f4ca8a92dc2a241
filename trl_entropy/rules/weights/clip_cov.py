"""Drop a few random tokens with high covariance between advantage and log-probability."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import covariances
from ..tokens import Tokens


@dataclass(frozen=True)
class ClipCov(Rule):
    r"""
    Drop a few random tokens with high covariance between advantage and log-probability.

    $$
    w_t = 0 \text{ if } t \in I, \quad 1 \text{ otherwise}, \qquad
    c_t = (\hat A_t - \mathrm{mean} \, \hat A) \, (\log \pi_\theta(y_t) - \mathrm{mean} \, \log \pi_\theta)
    $$

    with \\( I \\) a random choice of \\( \lfloor \rho N \rfloor \\) of the tokens with `low` \\( < c_t < \\) `high`,
    \\( \rho \\) = `share`, \\( N \\) the number of tokens; means and \\( N \\) are over the optimizer step. As in the
    released code, at least one token is chosen, but never one whose gradient TRL's clip has stopped. A weight of 0
    keeps the token in the denominator of the loss.

    Args:
        share (`float`, *optional*, defaults to `2e-4`):
            \\( \rho \in [0, 1] \\), the share of all tokens that is dropped (the paper's value); `0.0` drops none.
        low (`float`, *optional*, defaults to `1.0`):
            Covariance above which a token may be dropped (the paper's value).
        high (`float`, *optional*, defaults to `5.0`):
            Covariance below which a token may be dropped (the paper's value), greater than `low`.

    Raises `ValueError` for a share out of range, or a `low` that is not below `high`.

    Reference: [The Entropy Mechanism of Reinforcement Learning for Reasoning Language
    Models](https://huggingface.co/papers/2505.22617), 2025 (Clip-Cov).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pool", "completions"})

    share: float = knob(2e-4, low=0.0, high=1.0)
    low: float = knob(1.0)
    high: float = knob(5.0)

    def __post_init__(self):
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got low={self.low:g}, high={self.high:g}")

    @property
    def neutral(self) -> bool:
        return self.share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        covariance = covariances(tokens.pool)

        def candidates(batch: Tokens) -> Tensor:
            values = covariance(batch)
            return (values > self.low) & (values < self.high) & ~batch.clipped

        dropped = tokens.pool.top(tokens, lambda batch: batch.noise(), tokens.pool.share(self.share), candidates)
        return torch.where(dropped, 0.0, torch.ones_like(tokens.logps))
