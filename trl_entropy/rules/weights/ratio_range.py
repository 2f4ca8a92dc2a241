"""Clip tokens with low entropy earlier than tokens with high entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import first_of_rows
from ..tokens import Tokens


@dataclass(frozen=True)
class RatioRange(Rule):
    r"""
    Clip tokens with low entropy earlier than tokens with high entropy.

    $$
    w_t = w_{\text{out}} \text{ if } (\hat A_t > 0 \text{ and } r_t > 1 + \epsilon^+_t) \text{ or }
    (\hat A_t < 0 \text{ and } r_t < 1 - \epsilon^-_t), \quad 1 \text{ otherwise}
    $$

    with \\( r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t) \\) and wider bounds \\( \epsilon^\pm \\) for the
    \\( \lceil \rho \, (|o| - 1) \rceil \\) tokens of highest entropy of each completion, \\( \rho \\) = `share`: those
    above the \\( 1 - \rho \\) quantile if no two entropies are equal. A weight of 0 has the gradient of a clipped
    token and stays in the denominator, so this is Archer's clip inside TRL's. It can only narrow TRL's range, so TRL's
    `epsilon` must be as wide as the wider bounds. Strictly on-policy, all ratios are 1 and nothing is clipped.

    Args:
        epsilon_low (`float`, *optional*, defaults to `0.2`):
            \\( \epsilon^- \in [0, 1] \\) for tokens with low entropy (the released value).
        epsilon_high (`float`, *optional*, defaults to `0.2`):
            \\( \epsilon^+ \ge 0 \\) for tokens with low entropy (the released value).
        high_entropy_epsilon_low (`float`, *optional*, defaults to `0.5`):
            \\( \epsilon^- \in [0, 1] \\) for tokens with high entropy (the released value).
        high_entropy_epsilon_high (`float`, *optional*, defaults to `0.5`):
            \\( \epsilon^+ \ge 0 \\) for tokens with high entropy (the released value).
        share (`float`, *optional*, defaults to `0.2`):
            \\( \rho \in [0, 1] \\), the share of each completion's tokens that count as high-entropy (the released
            value); `0.0` gives all tokens the same range.
        outside (`float`, *optional*, defaults to `0.0`):
            \\( w_{\text{out}} \in [0, 1] \\): 0 clips, 1 leaves the token unchanged. The parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: [Stabilizing Knowledge, Promoting Reasoning: Dual-Token Constraints for
    RLVR](https://huggingface.co/papers/2507.15778), 2025 (Archer's clip; not its two KL coefficients).
    """

    origin: ClassVar[str] = "code"

    epsilon_low: float = knob(0.2, low=0.0, high=1.0)
    epsilon_high: float = knob(0.2, low=0.0)
    high_entropy_epsilon_low: float = knob(0.5, low=0.0, high=1.0)
    high_entropy_epsilon_high: float = knob(0.5, low=0.0)
    share: float = knob(0.2, low=0.0, high=1.0)
    outside: float = knob(0.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.outside == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        number = torch.ceil(self.share * (tokens.mask.sum(-1, keepdim=True) - 1) - 1e-4)  # float32 may round up
        wide = first_of_rows(tokens, -tokens.entropies, number)
        low = torch.where(wide, self.high_entropy_epsilon_low, self.epsilon_low)
        high = torch.where(wide, self.high_entropy_epsilon_high, self.epsilon_high)
        ratios = torch.exp(tokens.logps.float() - tokens.old_logps.float())
        return torch.where(tokens.leaves(ratios, low, high), self.outside, torch.ones_like(tokens.logps))
