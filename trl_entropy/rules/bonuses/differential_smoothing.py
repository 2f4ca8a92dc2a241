"""Reward right completions for being unlikely, and punish wrong ones for it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens, is_correct, is_incorrect


@dataclass(frozen=True)
class DifferentialSmoothing(Rule):
    r"""
    Reward right completions for being unlikely, and punish wrong ones for it.

    $$
    b = -\gamma_p \log \pi_{\text{old}}(y) \text{ if the completion is right}, \quad
    \gamma_n \log \pi_{\text{old}}(y) \text{ if it is wrong}, \qquad
    \log \pi_{\text{old}}(y) = \sum_t \log \pi_{\text{old}}(y_t)
    $$

    All tokens of a completion get the same bonus. A completion is right if its reward is above 0.5; without a reward
    it gets no bonus. Groups that are all right or all wrong get the bonus too. It has no bound: it grows with the
    length.

    Args:
        gamma_p (`float`, *optional*, defaults to `1e-3`):
            \\( \gamma_p \ge 0 \\), advantage per nat of right completions. Ours: we could not find the paper's value.
        gamma_n (`float`, *optional*, defaults to `1e-3`):
            \\( \gamma_n \ge 0 \\), advantage per nat of wrong ones. Ours, for the same reason.

    Raises `ValueError` for a value out of range.

    Reference: [Differential Smoothing Mitigates Sharpening and Improves LLM
    Reasoning](https://huggingface.co/papers/2511.19942), 2025 (DS-GRPO).
    """

    token_selective: ClassVar[bool] = False

    gamma_p: float = knob(1e-3, low=0.0)
    gamma_n: float = knob(1e-3, low=0.0)

    @property
    def neutral(self) -> bool:
        return self.gamma_p == self.gamma_n == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        right, wrong = is_correct(tokens.rewards), is_incorrect(tokens.rewards)
        coefs = torch.where(right, -self.gamma_p, torch.where(wrong, self.gamma_n, 0.0)).to(tokens.logps.dtype)
        return (coefs * tokens.old_logps.sum(-1)).unsqueeze(1).expand_as(tokens.logps)
