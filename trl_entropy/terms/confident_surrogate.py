"""EntroPIC's adjustment as a term of its own: unclipped, on the tokens that the policy is sure of."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Rule, Tokens, knob


@dataclass(frozen=True)
class ConfidentSurrogate(Rule):
    r"""
    EntroPIC's adjustment as a term of its own: unclipped, on the tokens that the policy is sure of.

    $$
    t_t = -\alpha \, r_t \, |\hat A_t| \, \mathbb{1}[\pi_\theta(y_t) > \tau], \qquad
    r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t)
    $$

    The formula of the released code. There the mean is over the confident tokens of a micro-batch, here over all
    trained tokens of the optimizer step, so that nothing depends on how the batch is split. On-policy its gradient
    is what [`~weights.ConfidentSign`] adds; off-policy it keeps pushing where the clip has stopped the main loss.

    Args:
        alpha (`float`, *optional*, defaults to `0.0`):
            \\( \alpha \in [-1, 1] \\); negative raises entropy.
        threshold (`float`, *optional*, defaults to `0.95`):
            \\( \tau \in [0, 1] \\), the probability above which a token counts as confident (the released default).

    Raises `ValueError` for a value out of range.

    Reference: [EntroPIC: Towards Stable Long-Term Training of LLMs via Entropy Stabilization with
    Proportional-Integral Control](https://huggingface.co/papers/2511.15248), 2025.
    """

    alpha: float = knob(0.0, low=-1.0, high=1.0, raises_entropy=False)
    threshold: float = knob(0.95, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        threshold = math.log(self.threshold) if self.threshold > 0 else -math.inf
        ratio = torch.exp(tokens.logps - tokens.old_logps)
        return torch.where(tokens.logps > threshold, -self.alpha * ratio * tokens.advantages.abs(), 0.0)
