"""Weight completions down by their standardized log-perplexity."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..tokens import Rule, Tokens, knob


@dataclass(frozen=True)
class Perplexity(Rule):
    r"""
    Weight completions down by their standardized log-perplexity.

    $$
    w_i = \mathrm{clip}(1 - \alpha z_i, \; 1 - c, \; 1 + c), \qquad
    z_i = (\ell_i - \mathrm{mean} \, \ell) / \mathrm{std} \, \ell, \quad
    \ell_i = -\tfrac{1}{|o_i|} \sum_t \log \pi_{\text{old}}(y_{i,t})
    $$

    with \\( c \\) = `limit`. Mean and deviation (of the population) are over the completions of the optimizer step;
    the released code has those of the prompt's group, without outliers. To the deviation 1e-6 is added (ours).

    Args:
        alpha (`float`, *optional*, defaults to `0.01`):
            \\( \alpha \in [-1, 1] \\), the strength (the released value); below 0 completions of high perplexity count
            more.
        limit (`float`, *optional*, defaults to `0.2`):
            \\( c \in [0, 1] \\), the farthest a weight goes from 1 (the released value). The paper's formula has no
            limit; 1 is the nearest to it with weights >= 0.

    Raises `ValueError` for a value out of range.

    Reference: [Decomposing the Entropy-Performance Exchange](https://huggingface.co/papers/2508.02260), 2025
    (perplexity-based shaping).
    """

    token_selective: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pool"})

    alpha: float = knob(0.01, low=-1.0, high=1.0)
    limit: float = knob(0.2, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0 or self.limit == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        mean = tokens.pool.mean_of_rows(log_perplexity)
        variance = tokens.pool.mean_of_rows(lambda batch: (log_perplexity(batch) - mean).square())
        score = (log_perplexity(tokens) - mean) / (variance.sqrt() + 1e-6)
        weights = (1 - self.alpha * score).clamp(1 - self.limit, 1 + self.limit)
        return weights.to(tokens.logps.dtype).unsqueeze(1).expand_as(tokens.mask)


def log_perplexity(tokens: Tokens) -> Tensor:
    """`(B,)`: the log-perplexity of each completion under the policy that produced it."""
    return -tokens.mean_over_row(tokens.old_logps.float())
