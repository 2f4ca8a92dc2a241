"""Hold low-entropy tokens near the reference, more strongly where covariance is high (SENT)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import covariances
from ..tokens import Tokens


@dataclass(frozen=True)
class Sent(Rule):
    r"""
    Hold low-entropy tokens near the reference, more strongly where covariance is high (SENT).

    $$
    t_t = \beta \, \gamma_t \, d_t, \qquad
    \gamma_t = \gamma_{\text{high}} \text{ on } T_{\text{high}}, \quad
    \gamma_{\text{low}} \text{ on the rest of } T_{\text{low}}, \quad 0 \text{ elsewhere}
    $$

    \\( T_{\text{low}} \\) is the set of tokens whose entropy is below its `low_share` quantile.
    \\( T_{\text{high}} \\) is the `share` of them with the largest covariance \\( c_t \\) of [`~weights.ClipCov`], at
    least one. Both are over the optimizer step. \\( d = e^{-x} - 1 + x \\),
    \\( x = \log \pi_\theta(y_t) - \log \pi_{\text{ref}}(y_t) \\), is TRL's estimate of the divergence from the
    reference. It needs `beta > 0` and adds to TRL's own penalty.

    The released code (`form="code"`) has \\( d = |\log \pi_\theta(y_t) - \log \pi_{\text{old}}(y_t)| \\), takes the
    means in \\( c_t \\) over \\( T_{\text{low}} \\), and applies \\( \gamma_{\text{low}} \\) only to the `share` with
    the smallest covariance; a token in both sets counts as smallest. Strictly on-policy, this form and its gradient
    are 0.

    Args:
        coef (`float`, *optional*, defaults to `0.1`):
            \\( \beta \ge 0 \\), the strength (the released value); `0.0` turns the term off. We could not find the
            paper's coefficients and thresholds, so using the released numbers with `form="paper"` is our choice.
        high_coef (`float`, *optional*, defaults to `2.0`):
            \\( \gamma_{\text{high}} \ge 0 \\) (the released value).
        low_coef (`float`, *optional*, defaults to `0.5`):
            \\( \gamma_{\text{low}} \ge 0 \\) (the released value).
        low_share (`float`, *optional*, defaults to `0.8`):
            In [0, 1]: the share of tokens that count as low-entropy (the released value).
        share (`float`, *optional*, defaults to `2e-4`):
            In [0, 1]: the share of the low-entropy tokens that has the highest covariance (the released value).

        form (`str`, *optional*, defaults to `"paper"`):
            "paper" or "code": which of the two forms to use.

    Raises `ValueError` for a value out of range, or another form.

    Reference: [SENT](https://huggingface.co/papers/2512.04359), 2025 (the loss; not the curriculum).
    """

    follows_loss_type: ClassVar[bool] = True

    coef: float = knob(0.1, low=0.0)
    high_coef: float = knob(2.0, low=0.0)
    low_coef: float = knob(0.5, low=0.0)
    low_share: float = knob(0.8, low=0.0, high=1.0)
    share: float = knob(2e-4, low=0.0, high=1.0)
    form: str = "paper"

    def __post_init__(self):
        super().__post_init__()
        if self.form not in ("paper", "code"):
            raise ValueError(f"form must be 'paper' or 'code', got {self.form!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pool", "ref_logps"} if self.form == "paper" else {"pool"})

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        pool = tokens.pool
        threshold = pool.quantile(lambda batch: batch.entropies, self.low_share) if self.low_share < 1 else math.inf

        def low(batch: Tokens) -> Tensor:
            return batch.mask & (batch.entropies.float() < threshold)

        covariance = covariances(pool) if self.form == "paper" else covariances(pool, low)
        number = pool.share(self.share, low)
        highest = pool.top(tokens, covariance, number, low)
        if self.form == "paper":
            factor = torch.where(highest, self.high_coef, torch.where(low(tokens), self.low_coef, 0.0))
            change = torch.where(factor > 0, tokens.logps - tokens.ref_logps, 0.0)
            divergence = torch.exp(-change) - 1 + change
        else:
            lowest = pool.top(tokens, lambda batch: -covariance(batch), number, low)
            factor = torch.where(lowest, self.low_coef, torch.where(highest, self.high_coef, 0.0))
            divergence = (tokens.logps - tokens.old_logps).abs()
        return self.coef * factor.to(divergence.dtype) * divergence
