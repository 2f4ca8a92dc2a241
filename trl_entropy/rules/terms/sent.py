"""Hold tokens of low entropy near the reference, more strongly where covariance is high (SENT)."""

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
    Hold tokens of low entropy near the reference, more strongly where covariance is high (SENT).

    $$
    t_t = \beta \, \gamma_t \, d_t, \qquad
    \gamma_t = \gamma_{\text{high}} \text{ on } T_{\text{high}}, \quad
    \gamma_{\text{low}} \text{ on the rest of } T_{\text{low}}, \quad 0 \text{ elsewhere}
    $$

    \\( T_{\text{low}} \\) are the tokens whose entropy is below its quantile at `low_share`, \\( T_{\text{high}} \\)
    the `share` of them with the largest covariance \\( c_t \\) of [`~weights.ClipCov`], at least one; all over the
    optimizer step. \\( d = e^{-x} - 1 + x \\), \\( x = \log \pi_\theta(y_t) - \log \pi_{\text{ref}}(y_t) \\), TRL's
    estimate of the divergence from the reference, which needs `beta > 0` and comes on top of TRL's own.

    The released code (`form="code"`) has \\( d = |\log \pi_\theta(y_t) - \log \pi_{\text{old}}(y_t)| \\), takes the
    means in \\( c_t \\) over \\( T_{\text{low}} \\), and \\( \gamma_{\text{low}} \\) for the `share` of the smallest
    covariance alone; a token that is among both counts as smallest. Strictly on-policy it is 0, with its gradient.

    Args:
        coef (`float`, *optional*, defaults to `0.1`):
            \\( \beta \ge 0 \\), the strength (the released value); `0.0` turns the term off. The paper's coefficients
            and thresholds could not be found, so with `form="paper"` the released numbers are ours.
        high_coef (`float`, *optional*, defaults to `2.0`):
            \\( \gamma_{\text{high}} \ge 0 \\) (the released value).
        low_coef (`float`, *optional*, defaults to `0.5`):
            \\( \gamma_{\text{low}} \ge 0 \\) (the released value).
        low_share (`float`, *optional*, defaults to `0.8`):
            In [0, 1]: the share of tokens that counts as of low entropy (the released value).
        share (`float`, *optional*, defaults to `2e-4`):
            In [0, 1]: the share of the low-entropy tokens of highest covariance (the released value).

        form (`str`, *optional*, defaults to `"paper"`):
            "paper" or "code": which of the two.

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
