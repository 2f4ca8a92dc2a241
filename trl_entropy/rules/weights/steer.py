"""Damp the tokens whose update would move entropy most."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class Steer(Rule):
    r"""
    Damp the tokens whose update would move entropy most.

    $$
    w_t = \lambda^{|\Omega_t| / \max |\Omega|}, \qquad
    \Omega_t = -r_t \, \hat A_t \, (1 - \pi_\theta(y_t)) \, (H_t + \log \pi_\theta(y_t)), \quad
    r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t)
    $$

    with \\( \lambda \\) = `floor` and \\( H \\) the entropy under the old policy. The maximum is over the optimizer
    step, and at least 0.02. \\( \Omega \\) is the released code's estimate of how far a token's update moves entropy:
    up if above 0, down if below. The paper writes \\( e^{-\alpha} \\) for \\( \lambda \\).

    Args:
        floor (`float`, *optional*, defaults to `0.8`):
            \\( \lambda \in [0, 1] \\), the smallest weight (the released value; 0.6 to 0.8 work); `1.0` turns the rule
            off.

        sides (`str`, *optional*, defaults to `"both"`):
            "both" as in the released code, or "falling" (ours), which only damps tokens whose update lowers entropy,
            \\( \Omega < 0 \\).

    Raises `ValueError` for a floor out of range, or other sides.

    Reference: [Rethinking Entropy Interventions in RLVR: An Entropy Change
    Perspective](https://huggingface.co/papers/2510.10150), 2025 (STEER, with its exponential mapping).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"pool", "old_entropies"})

    floor: float = knob(0.8, low=0.0, high=1.0)
    sides: str = "both"

    def __post_init__(self):
        super().__post_init__()
        if self.sides not in ("both", "falling"):
            raise ValueError(f"sides must be 'both' or 'falling', got {self.sides!r}")

    @property
    def neutral(self) -> bool:
        return self.floor == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        largest = tokens.pool.largest(lambda batch: entropy_change(batch).abs(), 1).clamp(min=0.02)
        change = entropy_change(tokens)
        damped = change.abs() if self.sides == "both" else (-change).clamp(min=0)
        return (self.floor ** (damped / largest).clamp(max=1)).to(tokens.logps.dtype)


def entropy_change(tokens: Tokens) -> Tensor:
    r"""\\( \Omega_t \\), `(B, T)`, float32."""
    logps, old_logps = tokens.logps.float(), tokens.old_logps.float()
    ratios = logps.exp() / old_logps.exp().clamp(min=1e-8)
    return ratios * tokens.advantages.float() * torch.expm1(logps) * (tokens.old_entropies.float() + logps)
