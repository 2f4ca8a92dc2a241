"""Enlarge advantages towards the end of a completion."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class Position(Rule):
    r"""
    Enlarge advantages towards the end of a completion.

    $$
    b_t = \mathrm{sign}(\hat A_t) \, \min\big(\alpha \, \sigma(k (\rho_t - \tfrac{1}{2})), \; |\hat A_t| / 2\big),
    \qquad \rho_t = i_t / n
    $$

    with \\( \sigma \\) the logistic function, \\( k \\) = `steepness`, \\( i_t \\) the place of the token among the
    trained tokens of its completion, from 0, and \\( n \\) their number. The formula and the constants are the
    released code's, which only applies the bonus in a part of the run.

    Args:
        alpha (`float`, *optional*, defaults to `0.1`):
            \\( \alpha \ge 0 \\), the largest bonus (the released value).
        steepness (`float`, *optional*, defaults to `15.0`):
            \\( k \ge 0 \\), how sharp the rise in the middle is (the released value).
        start_step (`int`, *optional*, defaults to `0`):
            First optimizer step, counted from 0, with a bonus.
        end_step (`int`, *optional*):
            First later optimizer step without a bonus; `None` keeps the bonus to the end of the run.

    Raises `ValueError` for a value out of range, or steps that are not increasing whole numbers.

    Reference: [Decomposing the Entropy-Performance Exchange](https://huggingface.co/papers/2508.02260), 2025
    (position-based shaping).
    """

    origin: ClassVar[str] = "code"

    alpha: float = knob(0.1, low=0.0)
    steepness: float = knob(15.0, low=0.0)
    start_step: int = 0
    end_step: int | None = None

    def __post_init__(self):
        super().__post_init__()
        steps = [self.start_step] if self.end_step is None else [self.start_step, self.end_step]
        if any(type(step) is not int for step in steps) or steps != sorted(set(steps)) or steps[0] < 0:
            raise ValueError(
                "start_step and end_step must be whole numbers with 0 <= start_step < end_step (or end_step null), "
                f"got {self.start_step!r} and {self.end_step!r}"
            )

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        if tokens.step < self.start_step or (self.end_step is not None and tokens.step >= self.end_step):
            return torch.zeros_like(tokens.logps)
        places = (tokens.mask.cumsum(-1) - 1) / tokens.mask.sum(-1, keepdim=True).clamp(min=1)
        bonus = self.alpha * torch.sigmoid(self.steepness * (places - 0.5))
        bonus = torch.minimum(bonus, tokens.advantages.abs() / 2)
        return (tokens.advantages.sign() * bonus).to(tokens.logps.dtype)
