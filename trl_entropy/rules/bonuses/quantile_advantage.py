"""Measure rewards against a quantile of the group instead of its mean."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class QuantileAdvantage(Rule):
    r"""
    Measure rewards against a quantile of the group instead of its mean.

    $$
    b_t = s \, \frac{\mathrm{mean}(R) - b_K}{\mathrm{std}(R) + 10^{-4}}, \qquad
    b_K = \inf \{x : F(x) \ge K\}
    $$

    with \\( R \\) the rewards of the group, \\( F(x) \\) the share of them that are at most \\( x \\), \\( K \\) =
    `k`, \\( s \\) = `strength`. TRL's advantage is \\( (R_i - \mathrm{mean}) / (\mathrm{std} + 10^{-4}) \\) with
    `scale_rewards="group"`, so at \\( s = 1 \\) the sum is \\( (R_i - b_K) / (\mathrm{std} + 10^{-4}) \\); with
    another scale this does not hold. For rewards 0 and 1 and a share \\( p \\) of right completions, \\( b_K = 0 \\)
    if \\( p \le 1 - K \\), so only right completions are trained on, and otherwise \\( b_K = 1 \\), so only wrong ones
    are.

    Completions without a reward do not count in the statistics and get no bonus. In a group that lacks a reward, we
    take the completions with advantage 0 to be those without one.

    Args:
        k (`float`, *optional*, defaults to `0.4`):
            \\( K \in [0, 1] \\) (the paper's; 0.6 where entropy collapses). A larger value explores more. At 0,
            \\( b_K \\) is the smallest reward, at 1 the largest.
        strength (`float`, *optional*, defaults to `1.0`):
            \\( s \in [0, 1] \\); 1 is the paper's advantage, 0 TRL's. The parameter is ours.

        interpolation (`str`, *optional*, defaults to `"none"`):
            "none" is the paper's quantile, above; "linear" is the released code's, interpolated between neighbors.

    Raises `ValueError` for a value out of range, or another interpolation.

    Reference: [Quantile Advantage Estimation for Entropy-Safe Reasoning](https://huggingface.co/papers/2509.22611),
    2025 (QAE).
    """

    token_selective: ClassVar[bool] = False
    replaces_advantage: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"group_rewards"})

    k: float = knob(0.4, low=0.0, high=1.0)
    strength: float = knob(1.0, low=0.0, high=1.0)
    interpolation: str = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.interpolation not in ("none", "linear"):
            raise ValueError(f"interpolation must be 'none' or 'linear', got {self.interpolation!r}")

    @property
    def neutral(self) -> bool:
        return self.strength == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        rewards = tokens.group_rewards.float()
        count = (~rewards.isnan()).sum(-1, keepdim=True)
        mean = rewards.nanmean(-1, keepdim=True)
        std = ((rewards - mean).square().nansum(-1, keepdim=True) / (count - 1)).sqrt()
        bonus = self.strength * (mean - self._baseline(rewards, count)) / (std + 1e-4)
        # statistics need two rewards; and TRL gives advantage 0 to a completion without a reward
        without = (count < 2) | ((count < rewards.shape[-1]) & (tokens.advantages == 0))
        return torch.where(without, 0.0, bonus).to(tokens.logps.dtype)

    def _baseline(self, rewards: Tensor, count: Tensor) -> Tensor:
        ordered = rewards.sort(-1).values  # NaN comes last
        last = (count - 1).clamp(min=0)
        if self.interpolation == "none":
            place = torch.ceil(self.k * count - 1e-4).long() - 1  # k * count may be rounded up
            return ordered.gather(-1, place.clamp(min=0))
        place = self.k * last
        below = place.floor().long()
        low, high = ordered.gather(-1, below), ordered.gather(-1, torch.minimum(below + 1, last))
        return low + (high - low) * (place - below)
