"""Drop the tokens whose probability has moved too far, by total variation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import WITHOUT_CLIP, sampler_logps
from ..tokens import Tokens


@dataclass(frozen=True)
class DPPOTv(Rule):
    r"""
    Drop the tokens whose probability has moved too far, by total variation.

    $$
    w_t = w_{\text{out}} \text{ if } (\hat A_t > 0 \text{ and } \pi_t - \mu_t > \delta_+) \text{ or }
    (\hat A_t < 0 \text{ and } \pi_t - \mu_t < -\delta_-), \quad 1 \text{ otherwise}
    $$

    with \\( \pi_t = \pi_\theta(y_t) \\) and \\( \mu_t \\) the probability under the policy that sampled: the sampling
    engine's where TRL has it (`sampling_logps`), else the old policy's. \\( |\pi_t - \mu_t| \\) is the total variation
    between the two distributions over "this token" and "another one". The rule replaces TRL's clip, so TRL's own clip
    range must be wide.

    Args:
        low (`float`, *optional*, defaults to `0.15`):
            \\( \delta_- \in [0, 1] \\), for negative advantages (the authors' script in verl).
        high (`float`, *optional*, defaults to `0.15`):
            \\( \delta_+ \in [0, 1] \\), for positive advantages (the authors' script in verl).
        outside (`float`, *optional*, defaults to `0.0`):
            \\( w_{\text{out}} \in [0, 1] \\): 0 masks, 1 leaves the token unchanged. The parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: Qi et al., [Rethinking the Trust Region in LLM Reinforcement
    Learning](https://huggingface.co/papers/2602.04879), 2026 (DPPO-Binary-TV).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"sampling_logps"})

    low: float = knob(0.15, low=0.0, high=1.0)
    high: float = knob(0.15, low=0.0, high=1.0)
    outside: float = knob(0.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.outside == 1.0

    @property
    def least_clip_range(self) -> tuple[float, float]:
        return WITHOUT_CLIP

    def __call__(self, tokens: Tokens) -> Tensor:
        change = tokens.logps.float().exp() - sampler_logps(tokens).exp()
        left = (tokens.positive & (change > self.high)) | (tokens.negative & (change < -self.low))
        return torch.where(left, self.outside, torch.ones_like(tokens.logps))
