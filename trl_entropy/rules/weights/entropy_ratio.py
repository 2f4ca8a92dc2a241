"""Drop the tokens where entropy has changed too far."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class EntropyRatio(Rule):
    r"""
    Drop the tokens where entropy has changed too far.

    $$
    w_t = 1 \text{ if } 1 - \beta_{\text{low}} \le \frac{H_t + 10^{-8}}{H^{\text{old}}_t + 10^{-8}} \le
    1 + \beta_{\text{high}}, \quad w_{\text{out}} \text{ otherwise}
    $$

    with \\( H \\) the entropy under the policy and \\( H^{\text{old}} \\) under the policy that sampled. The small
    numbers are the released code's; two entropies of 0 have ratio 1. The rule acts on top of TRL's clip, which only
    sees the sampled token. Strictly on-policy, all ratios are 1 and nothing is dropped. A weight of 0 keeps the token
    in the denominator of the loss.

    Args:
        beta_low (`float`, *optional*, defaults to `0.05`):
            \\( \beta_{\text{low}} \in [0, 1] \\), how far entropy may fall (the released value); `1.0` allows any
            fall.
        beta_high (`float`, *optional*, defaults to `0.05`):
            \\( \beta_{\text{high}} \ge 0 \\), how far entropy may rise (the released value).
        outside (`float`, *optional*, defaults to `0.0`):
            \\( w_{\text{out}} \in [0, 1] \\), the weight outside the range: 0 in the paper, 1 turns the rule off. The
            parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: [Entropy Ratio Clipping as a Soft Global Constraint for Stable Reinforcement
    Learning](https://huggingface.co/papers/2512.05591), 2025 (ERC).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"old_entropies"})

    beta_low: float = knob(0.05, low=0.0, high=1.0)
    beta_high: float = knob(0.05, low=0.0)
    outside: float = knob(0.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.outside == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        # rounding may put the entropy of a confident policy below 0
        new, old = tokens.entropies.float().clamp(min=0), tokens.old_entropies.float().clamp(min=0)
        ratios = (new + 1e-8) / (old + 1e-8)
        inside = (ratios >= 1 - self.beta_low) & (ratios <= 1 + self.beta_high)
        return torch.where(inside, torch.ones_like(tokens.logps), self.outside)
