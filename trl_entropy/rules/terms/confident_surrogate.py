"""Push the tokens that the policy is sure of up or down with a separate, unclipped term (EntroPIC)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class ConfidentSurrogate(Rule):
    r"""
    Push the tokens that the policy is sure of up or down with a separate, unclipped term (EntroPIC).

    $$
    t_t = -\alpha \, r_t \, |\hat A_t| \, \mathbb{1}[\pi_\theta(y_t) > \tau], \qquad
    r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t)
    $$

    The formula and the mean over the confident tokens (`mean_over="confident"`) are the released code's, which takes
    that mean over a micro-batch; here it is over the optimizer step on all ranks. Off-policy, the term keeps pushing
    where the clip has stopped the main loss. `mean_over="all"` is ours: the term is averaged as `loss_type` averages
    the surrogate. With `dapo` the term is then weaker by the share of confident tokens, and on-policy its gradient is
    what [`~weights.ConfidentSign`] adds.

    Args:
        alpha (`float`, *optional*, defaults to `0.0`):
            \\( \alpha \in [-1, 1] \\), the strength; a negative value raises entropy. In EntroPIC a PI law turns it.
        threshold (`float`, *optional*, defaults to `0.95`):
            \\( \tau \in [0, 1] \\), the probability above which a token counts as confident (the released default).
        mean_over (`str`, *optional*, defaults to `"confident"`):
            "confident" or "all": the tokens that the term is averaged over.

    Raises `ValueError` for a value out of range.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    origin: ClassVar[str] = "code"

    alpha: float = knob(0.0, low=-1.0, high=1.0, raises_entropy=False)
    threshold: float = knob(0.95, low=0.0, high=1.0)
    mean_over: str = "confident"

    def __post_init__(self):
        super().__post_init__()
        if self.mean_over not in ("confident", "all"):
            raise ValueError(f"mean_over must be 'confident' or 'all', got {self.mean_over!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"num_tokens", "pool"}) if self.mean_over == "confident" else frozenset()

    @property
    def follows_loss_type(self) -> bool:
        return self.mean_over == "all"

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        term = torch.where(self._confident(tokens), -self.alpha * tokens.ratios * tokens.advantages.abs(), 0.0)
        if self.mean_over == "all":
            return term
        # The sum is divided by this number; the mean over the tokens of the pool if none is given
        number = tokens.pool.count() if tokens.num_tokens is None else tokens.num_tokens
        confident = tokens.pool.sum(self._confident)
        # An earlier step without any (with pooling=lagged) leaves nothing to divide by
        return term * torch.where(confident > 0, number / confident.clamp(min=1), 0.0).to(term.dtype)

    def _confident(self, tokens: Tokens) -> Tensor:
        return tokens.logps > (math.log(self.threshold) if self.threshold > 0 else -math.inf)
