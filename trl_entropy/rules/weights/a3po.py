"""Enlarge advantages on unlikely tokens of right completions and likely tokens of wrong ones."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import first_of_rows
from ..tokens import Tokens


@dataclass(frozen=True)
class A3PO(Rule):
    r"""
    Enlarge advantages on unlikely tokens of right completions and likely tokens of wrong ones.

    $$
    w_t = 1 + (c - 1) \max(0, 1 - n / N) \text{ if } t \in I, \quad 1 \text{ otherwise}
    $$

    with \\( c \\) = `factor`, \\( n \\) the optimizer step and \\( N \\) = `decay_steps`. \\( I \\) holds
    \\( \lfloor \rho \, |o| \rfloor \\) tokens of each completion, with \\( \rho \\) = `share` and at least one: those
    that were least likely when sampled if \\( \hat A > 0 \\), and those that were most likely if \\( \hat A < 0 \\).
    The selection is the released code's, which does not decay the factor. The paper decays it, but we could not find
    how: the linear decay is ours.

    Args:
        factor (`float`, *optional*, defaults to `2.0`):
            \\( c \ge 0 \\), the weight of the chosen tokens at the start (the paper's value); `1.0` turns the rule
            off.
        share (`float`, *optional*, defaults to `0.2`):
            \\( \rho \in [0, 1] \\), the share of each completion's tokens that is chosen (the paper's value); `0.0`
            chooses none.
        decay_steps (`int`, *optional*, defaults to `200`):
            \\( N > 0 \\), the optimizer step from which the weight is 1 (ours); `None` for no decay, as in the
            released code.

    Raises `ValueError` for a value out of range.

    Reference: [Rethinking Sample Polarity in Reinforcement Learning with Verifiable
    Rewards](https://huggingface.co/papers/2512.21625), 2025 (A3PO).
    """

    origin: ClassVar[str] = "style"

    factor: float = knob(2.0, low=0.0)
    share: float = knob(0.2, low=0.0, high=1.0)
    decay_steps: int | None = 200

    def __post_init__(self):
        super().__post_init__()
        if self.decay_steps is not None and (type(self.decay_steps) is not int or self.decay_steps < 1):
            raise ValueError(f"decay_steps must be a whole number >= 1 or null, got {self.decay_steps!r}")

    @property
    def neutral(self) -> bool:
        return self.factor == 1.0 or self.share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        left = 1.0 if self.decay_steps is None else max(0.0, 1 - tokens.step / self.decay_steps)
        likeliest_last = torch.where(tokens.advantages > 0, tokens.old_logps, -tokens.old_logps)
        number = (self.share * tokens.mask.sum(-1, keepdim=True)).floor().clamp(min=math.ceil(self.share))
        chosen = first_of_rows(tokens, likeliest_last, number) & (tokens.advantages != 0)
        return torch.where(chosen, 1 + (self.factor - 1) * left, torch.ones_like(tokens.logps))
