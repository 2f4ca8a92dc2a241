"""Balance the updates that lower entropy and those that raise it, in the style of OPEFO."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import discriminator
from ..tokens import Tokens


@dataclass(frozen=True)
class Opefo(Rule):
    r"""
    Balance the updates that lower entropy and those that raise it, in the style of OPEFO.

    $$
    w_t = 1 + s \lambda \, \mathrm{sign}(\delta_t), \qquad
    \lambda = \frac{D_- - D_+}{D_- + D_+}, \quad
    D_\pm = \sum_t \max(0, \pm\delta_t), \quad
    \delta_t = -\hat A_t S_t
    $$

    \\( \delta_t \\) is the change of entropy by the token's update, to first order, with the discriminator
    \\( S_t = \pi_t (H_t + \log \pi_t) \\), and the sums are over the optimizer step. With \\( s = 1 \\) the weighted
    changes add up to 0. The balance is OPEFO's, second-hand; that its \\( \delta_t \\) is this one is our reading.

    Args:
        strength (`float`, *optional*, defaults to `1.0`):
            \\( s \in [0, 1] \\), the share of the imbalance that is removed; `0.0` turns the weight off.

    Raises `ValueError` for a value out of range.

    Reference: [Understanding and Preventing Entropy Collapse in RLVR with On-Policy Entropy Flow
    Optimization](https://huggingface.co/papers/2605.11491), 2026 (OPEFO).
    """

    origin: ClassVar[str] = "style"
    needs: ClassVar[frozenset] = frozenset({"pool"})

    strength: float = knob(1.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.strength == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        def change(batch: Tokens) -> Tensor:
            return -batch.advantages.float() * discriminator(batch)

        raised = tokens.pool.sum(lambda batch: change(batch).clamp(min=0))
        lowered = tokens.pool.sum(lambda batch: change(batch).clamp(max=0))  # below 0
        size = (raised - lowered).clamp(min=torch.finfo(raised.dtype).tiny)
        imbalance = -self.strength * (raised + lowered) / size
        return (1 + imbalance * change(tokens).sign()).to(tokens.logps.dtype)
