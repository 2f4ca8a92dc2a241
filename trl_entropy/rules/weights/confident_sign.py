"""Weight the tokens that the policy is sure of, by the sign of their advantage."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class ConfidentSign(Rule):
    r"""
    Weight the tokens that the policy is sure of, by the sign of their advantage.

    $$
    w_t = 1 + \alpha \, \mathrm{sign}(\hat A_t) \text{ if } \pi_\theta(y_t) > \tau, \quad 1 \text{ otherwise}
    $$

    \\( \alpha < 0 \\) raises entropy (confident positives count less, confident negatives more), \\( \alpha > 0 \\)
    lowers it. Unlikely tokens keep weight 1, so rare ones are not pushed further down. Using a weight is our choice:
    it has the clip range and the denominator (all tokens) of the main loss. The released code adds an unclipped term,
    [`~terms.ConfidentSurrogate`], and averages it over the confident tokens only. If their share is \\( s \\), the
    term is stronger by \\( 1 / s \\).

    Args:
        alpha (`float`, *optional*, defaults to `0.0`):
            \\( \alpha \in [-1, 1] \\), the strength.
        threshold (`float`, *optional*, defaults to `0.95`):
            \\( \tau \in [0, 1] \\), the probability above which a token counts as confident (the released default).

    Raises `ValueError` for a value out of range.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    origin: ClassVar[str] = "style"

    alpha: float = knob(0.0, low=-1.0, high=1.0, raises_entropy=False)
    threshold: float = knob(0.95, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        threshold = math.log(self.threshold) if self.threshold > 0 else -math.inf
        return torch.where(tokens.logps > threshold, 1 + self.alpha * tokens.advantages.sign(), 1.0)
