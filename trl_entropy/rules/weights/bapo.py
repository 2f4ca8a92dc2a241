"""Widen the clip range until positive tokens have their share of the surrogate."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class BAPO(Rule):
    r"""
    Widen the clip range until positive tokens have their share of the surrogate.

    $$
    w_t = w_{\text{out}} \text{ if } (\hat A_t > 0 \text{ and } r_t > c_+) \text{ or }
    (\hat A_t < 0 \text{ and } r_t < c_-), \quad 1 \text{ otherwise}
    $$

    with \\( r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t) \\) and bounds that are searched at every optimizer step
    until

    $$
    \frac{P}{P + N} \ge \rho_0, \qquad P = \sum_{\hat A_t > 0} \min(r_t, c_+) \, \hat A_t, \quad
    N = \sum_{\hat A_t < 0} \max(r_t, c_-) \, |\hat A_t|
    $$

    over all tokens of the step, with \\( \rho_0 \\) = `share`. The search first moves \\( c_- \\) from `low_start` to
    `low_end`, then \\( c_+ \\) from `high_start` to `high_end` in steps of `step`. A larger \\( c_- \\) makes
    \\( N \\) larger, so \\( c_- \\) either stays at its start or goes to its end. A weight of 0 has the gradient of a
    clipped token, so this is BAPO's clip inside TRL's, which must be as wide as the widest bounds.

    Args:
        share (`float`, *optional*, defaults to `0.5`):
            \\( \rho_0 \in [0, 1] \\), the share to reach (the paper's value).
        low_start, low_end (`float`, *optional*, default to `0.6` and `0.9`):
            First and last lower bound of the ratio, in [0, 1] (the paper's values).
        high_start, high_end (`float`, *optional*, default to `1.2` and `3.0`):
            First and last upper bound of the ratio, at least 1 (the paper's values).
        step (`float`, *optional*, defaults to `0.05`):
            Step of the upper bound (the released config's value).
        outside (`float`, *optional*, defaults to `0.0`):
            \\( w_{\text{out}} \in [0, 1] \\): 0 clips, 1 leaves the token unchanged. The parameter is ours.

    Raises `ValueError` for a value out of range, and for bounds that end before they start.

    Reference: Xi et al., [BAPO: Stabilizing Off-Policy Reinforcement Learning for LLMs via Balanced Policy
    Optimization with Adaptive Clipping](https://huggingface.co/papers/2510.18927), 2025.
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"pool", "clipped"})

    share: float = knob(0.5, low=0.0, high=1.0)
    low_start: float = 0.6
    low_end: float = 0.9
    high_start: float = 1.2
    high_end: float = 3.0
    step: float = 0.05
    outside: float = knob(0.0, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = self.low_start, self.low_end, self.high_start, self.high_end
        if not 0 <= bounds[0] <= bounds[1] <= 1 <= bounds[2] <= bounds[3] < math.inf:
            raise ValueError(
                "low_start, low_end, high_start and high_end must be numbers in increasing order, two in [0, 1] "
                f"and two of at least 1, got {', '.join(map(str, bounds))}"
            )
        if not 0 < self.step < math.inf:
            raise ValueError(f"step must be a number > 0, got {self.step!r}")

    @property
    def neutral(self) -> bool:
        return self.outside == 1.0

    @property
    def least_clip_range(self) -> tuple[float, float]:
        return 1 - self.low_start, self.high_end - 1

    def __call__(self, tokens: Tokens) -> Tensor:
        count = math.ceil((self.high_end - self.high_start) / self.step - 1e-9) + 1
        highs = [min(self.high_end, self.high_start + self.step * at) for at in range(count)]
        sums = [partial(_up, bound=high) for high in highs]
        sums += [partial(_down, bound=low) for low in (self.low_start, self.low_end)]
        up, (at_start, at_end) = tokens.pool.sums(sums).split([count, 2])
        is_short = self._short(up[0], at_start)
        short = self._short(up, torch.where(is_short, at_end, at_start))
        place = short.long().cumprod(0).sum().clamp(max=count - 1)  # of the first that is not short, or of the last
        low = torch.where(is_short, self.low_end, self.low_start)
        high = (self.high_start + self.step * place).clamp(max=self.high_end)
        left = tokens.leaves(tokens.ratios, 1 - low, high - 1)
        return torch.where(left, self.outside, torch.ones_like(tokens.logps))

    def _short(self, up: Tensor, down: Tensor) -> Tensor:
        return up < self.share * (up + down)


def _up(tokens: Tokens, bound: float) -> Tensor:
    return torch.where(tokens.positive, tokens.ratios.clamp(max=bound) * tokens.advantages, 0)


def _down(tokens: Tokens, bound: float) -> Tensor:
    return torch.where(tokens.negative, tokens.ratios.clamp(min=bound) * -tokens.advantages, 0)
