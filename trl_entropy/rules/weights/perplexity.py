"""Weight completions down by their standardized log-perplexity."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class Perplexity(Rule):
    r"""
    Weight completions down by their standardized log-perplexity.

    $$
    w_i = \mathrm{clip}(1 - \alpha z_i, \; 1 - c, \; 1 + c), \qquad
    z_i = (\ell_i - \mathrm{mean} \, \ell) / \mathrm{std} \, \ell, \quad
    \ell_i = -\tfrac{1}{|o_i|} \sum_t \log \pi_{\text{old}}(y_{i,t})
    $$

    with \\( c \\) = `limit`. Mean and (population) standard deviation are over the completions of the prompt's group
    without outliers, which are more than 1.5 interquartile ranges outside the quartiles. A deviation below 1e-6 counts
    as 1. All this is as in the released code.

    Args:
        alpha (`float`, *optional*, defaults to `0.01`):
            \\( \alpha \in [-1, 1] \\), the strength (the released value); below 0, completions with high perplexity
            count more.
        limit (`float`, *optional*, defaults to `0.2`):
            \\( c \in [0, 1] \\), the largest distance of a weight from 1 (the released value). The paper's formula has
            no limit; 1 is closest to it with weights >= 0.

        scope (`str`, *optional*, defaults to `"group"`):
            "group" is as above. "step" (ours) takes mean and deviation over all completions of the optimizer step,
            including outliers, and adds 1e-6 to the deviation.

    Raises `ValueError` for a value out of range, or another scope.

    Reference: [Decomposing the Entropy-Performance Exchange](https://huggingface.co/papers/2508.02260), 2025
    (perplexity-based shaping).
    """

    origin: ClassVar[str] = "code"
    token_selective: ClassVar[bool] = False

    alpha: float = knob(0.01, low=-1.0, high=1.0)
    limit: float = knob(0.2, low=0.0, high=1.0)
    scope: str = "group"

    def __post_init__(self):
        super().__post_init__()
        if self.scope not in ("group", "step"):
            raise ValueError(f"scope must be 'group' or 'step', got {self.scope!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"group_logps" if self.scope == "group" else "pool"})

    @property
    def neutral(self) -> bool:
        return self.alpha == 0.0 or self.limit == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        mean, std = group_statistics(-tokens.group_logps.float()) if self.scope == "group" else step_statistics(tokens)
        weights = (1 - self.alpha * (log_perplexity(tokens) - mean) / std).clamp(1 - self.limit, 1 + self.limit)
        return weights.to(tokens.logps.dtype).unsqueeze(1).expand_as(tokens.mask)


def group_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """`(B,)` each: mean and deviation of `(B, G)` values without outliers; NaN is left out."""
    low, high = (values.nanquantile(q, dim=1, keepdim=True) for q in (0.25, 0.75))
    kept = (values - values.clamp(low, high)).abs() <= 1.5 * (high - low)  # false for NaN
    count = kept.sum(1).clamp(min=1)
    mean = torch.where(kept, values, 0.0).sum(1) / count
    std = (torch.where(kept, values - mean.unsqueeze(1), 0.0).square().sum(1) / count).sqrt()
    return mean, torch.where(std < 1e-6, 1.0, std)


def step_statistics(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the completions of the optimizer step."""
    mean = tokens.pool.mean_of_rows(log_perplexity)
    variance = tokens.pool.mean_of_rows(lambda batch: (log_perplexity(batch) - mean).square())
    return mean, variance.sqrt() + 1e-6


def log_perplexity(tokens: Tokens) -> Tensor:
    """`(B,)`: the log-perplexity of each completion under the policy that produced it."""
    return -tokens.mean_over_row(tokens.old_logps.float())
