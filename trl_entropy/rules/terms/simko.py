"""Share the gradient of right tokens with likely candidates, and punish the likeliest wrong tokens harder."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...checks import check_number, check_whole_number
from ..looks import IsTop1, TopKLogp
from ..rule import Rule, knob
from ..scores import row_quantile
from ..tokens import Tokens


@dataclass(frozen=True)
class Simko(Rule):
    r"""
    Share the gradient of right tokens with likely candidates, and punish the likeliest wrong tokens harder.

    $$
    t_t = -\alpha \, \mathrm{sg}(r_t \hat A_t) \Big(\frac{1}{K} \sum_{k=1}^{K} \log \pi_{(k)}
    - \log \pi_\theta(y_t)\Big) \text{ if } \hat A_t > 0 \text{ and not clipped}, \qquad
    -(\lambda - 1) \min(r_t \hat A_t, \mathrm{clip}(r_t) \hat A_t) \text{ if } \hat A_t < 0, y_t = (1)
    $$

    and 0 elsewhere, also at tokens whose entropy is not above the completion's \\( \tau \\)-quantile.
    \\( \pi_{(k)} \\) are the \\( K \\) largest probabilities, and \\( (1) \\) is the most likely token. Together with
    the surrogate this gives SimKO's gradient: in the first case \\( 1 - \alpha \\) times the token's gradient plus
    \\( \alpha \\) times the mean gradient of the candidates; in the second the surrogate's gradient times
    \\( \lambda \\). The term reads TRL's advantages before weights and bonuses.

    Args:
        alpha (`float`, *optional*, defaults to `0.01`):
            \\( \alpha \in [0, 1] \\), the share that the candidates get (the released value).
        penalty (`float`, *optional*, defaults to `1.1`):
            \\( \lambda \ge 0 \\), the strength on the likeliest tokens of wrong completions (the released value).

        k (`int`, *optional*, defaults to `3`):
            \\( K \ge 1 \\), the number of candidates (the released value).
        quantile (`float`, *optional*, defaults to `0.8`):
            \\( \tau \in [0, 1) \\), the quantile of entropy above which tokens count (the released value).

    Raises `ValueError` for a value out of range.

    Reference: [SimKO: Simple Pass@K Policy Optimization](https://huggingface.co/papers/2510.14807), 2025.
    """

    origin: ClassVar[str] = "code"
    follows_loss_type: ClassVar[bool] = True

    alpha: float = knob(0.01, low=0.0, high=1.0)
    penalty: float = knob(1.1, low=0.0)
    k: int = 3
    quantile: float = 0.8

    def __post_init__(self):
        check_whole_number("k", self.k)
        check_number("quantile", self.quantile, 0.0, 1.0)
        if self.quantile == 1:
            raise ValueError("quantile must be < 1, got 1: no token would be left; alpha 0 and penalty 1 turn it off")
        super().__post_init__()

    @property
    def needs(self) -> frozenset:
        return frozenset({IsTop1(), TopKLogp(self.k)})

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0 and self.penalty == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        low, high = tokens.clip_range
        ratios, advantages, entropies = tokens.ratios, tokens.advantages, tokens.entropies.detach()
        surrogate = torch.minimum(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)
        shared = self.alpha * surrogate.detach() * (tokens.look(TopKLogp(self.k)) - tokens.logps)
        gain = torch.where(tokens.positive & ~tokens.clipped, shared, 0.0)
        gain = torch.where(tokens.negative & tokens.look(IsTop1()), (self.penalty - 1) * surrogate, gain)
        return torch.where(entropies > row_quantile(tokens, entropies, self.quantile), -gain, 0.0)
