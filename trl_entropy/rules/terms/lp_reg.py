"""Protect the least likely tokens of wrong completions, unless they are noise."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...checks import check_number
from ..looks import KeptMass
from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class LpReg(Rule):
    r"""
    Protect the least likely tokens of wrong completions, unless they are noise.

    $$
    t_t = \beta \, (e^{x_t} - 1 - x_t) \, \mathbb{1}[t \in I], \qquad
    x_t = \mathrm{sg}\big(\log \tilde\pi(y_t)\big) - \log \pi_\theta(y_t)
    $$

    \\( \tilde\pi \\) is the policy without the tokens whose probability is below \\( \kappa \max_v \pi_v \\),
    normalized again. \\( I \\) is the `share` of the tokens with negative advantage that have the smallest
    probability, at least one, over the optimizer step. Tokens that are left out of \\( \tilde\pi \\) get no term. The
    estimate of the divergence is bounded by 10, as in the released code.

    Args:
        coef (`float`, *optional*, defaults to `1.0`):
            \\( \beta \ge 0 \\), the strength (the released value); `0.0` turns the term off.
        share (`float`, *optional*, defaults to `0.01`):
            In [0, 1]: the share of the tokens with negative advantage (the released value for 14B; 0.005 for 32B).

        kappa (`float`, *optional*, defaults to `0.02`):
            \\( \kappa \in (0, 1] \\), the bound below which a token counts as noise (the released value).
        threshold (`str`, *optional*, defaults to `"relative"`):
            "relative" is the released form; "fixed" leaves out the tokens with a probability below \\( \kappa \\).

    Raises `ValueError` for a value out of range, or another threshold.

    Reference: [Low-probability Tokens Sustain Exploration in Reinforcement Learning with Verifiable
    Reward](https://huggingface.co/papers/2510.03222), 2025 (Lp-Reg).
    """

    origin: ClassVar[str] = "code"
    follows_loss_type: ClassVar[bool] = True

    coef: float = knob(1.0, low=0.0)
    share: float = knob(0.01, low=0.0, high=1.0)
    kappa: float = 0.02
    threshold: str = "relative"

    def __post_init__(self):
        check_number("kappa", self.kappa, 0.0, 1.0)
        if self.kappa == 0:
            raise ValueError("kappa must be > 0, got 0: with it no token is noise; coef 0 turns the term off")
        if self.threshold not in ("relative", "fixed"):
            raise ValueError(f"threshold must be 'relative' or 'fixed', got {self.threshold!r}")
        super().__post_init__()

    @property
    def needs(self) -> frozenset:
        return frozenset({"pool", self._look})

    @property
    def _look(self) -> KeptMass:
        return KeptMass(self.kappa, self.threshold == "relative")

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0 or self.share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        def negative(batch: Tokens) -> Tensor:
            return batch.negative

        number = tokens.pool.share(self.share, negative)
        least = tokens.pool.top(tokens, lambda batch: -batch.logps, number, negative)
        proxy = tokens.logps.detach() - tokens.look(self._look)
        change = torch.where(least, proxy - tokens.logps, 0.0)
        return self.coef * (change.exp() - 1 - change).clamp(max=10)
