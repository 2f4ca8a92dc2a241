"""Drop the tokens whose probability has moved too far, by binary KL divergence."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import WITHOUT_CLIP, sampler_logps
from ..tokens import Tokens


@dataclass(frozen=True)
class DPPOKl(Rule):
    r"""
    Drop the tokens whose probability has moved too far, by binary KL divergence.

    $$
    w_t = w_{\text{out}} \text{ if } (\hat A_t > 0, \; \pi_t > \mu_t, \; D_t > \delta_+) \text{ or }
    (\hat A_t < 0, \; \pi_t < \mu_t, \; D_t > \delta_-), \quad 1 \text{ otherwise}, \qquad
    D_t = \mu_t \log \frac{\mu_t}{\pi_t} + (1 - \mu_t) \log \frac{1 - \mu_t}{1 - \pi_t}
    $$

    with \\( \pi_t = \pi_\theta(y_t) \\) and \\( \mu_t \\) the probability under the policy that sampled: the sampling
    engine's where TRL has it (`sampling_logps`), else the old policy's. \\( D_t \\) is the divergence of the two
    distributions over "this token" and "another one". The rule replaces TRL's clip, so TRL's own clip range must be
    wide.

    Args:
        low (`float`, *optional*, defaults to `0.05`):
            \\( \delta_- \ge 0 \\) in nats, for negative advantages (the authors' script in verl).
        high (`float`, *optional*, defaults to `0.05`):
            \\( \delta_+ \ge 0 \\) in nats, for positive advantages (the authors' script in verl).
        outside (`float`, *optional*, defaults to `0.0`):
            \\( w_{\text{out}} \in [0, 1] \\): 0 masks, 1 leaves the token unchanged. The parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: Qi et al., [Rethinking the Trust Region in LLM Reinforcement
    Learning](https://huggingface.co/papers/2602.04879), 2026 (DPPO-Binary-KL).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"sampling_logps"})

    low: float = knob(0.05, low=0.0)
    high: float = knob(0.05, low=0.0)
    outside: float = knob(0.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.outside == 1.0

    @property
    def least_clip_range(self) -> tuple[float, float]:
        return WITHOUT_CLIP

    def __call__(self, tokens: Tokens) -> Tensor:
        now, before = tokens.logps.float(), sampler_logps(tokens)
        others = [1e-8 - logps.expm1() for logps in (before, now)]  # the released code's guard against 0
        divergence = before.exp() * (before - now) - before.expm1() * (others[0] / others[1]).log()
        up, down = tokens.positive & (now > before), tokens.negative & (now < before)
        left = (up & (divergence > self.high)) | (down & (divergence > self.low))
        return torch.where(left, self.outside, torch.ones_like(tokens.logps))
