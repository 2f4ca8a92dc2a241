"""Weight completions by their mean entropy relative to the mean of the step."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class RelativeEntropy(Rule):
    r"""
    Weight completions by their mean entropy relative to the mean of the step.

    $$
    w_i = 1 + s \, (\bar H_i / \bar H - 1), \qquad
    \bar H_i = \tfrac{1}{|o_i|} \sum_t H_{i,t}, \quad \bar H = \mathrm{mean}_i \, \bar H_i
    $$

    with \\( s \\) = `strength`. The mean over \\( i \\) is over the completions of the optimizer step, so the mean
    weight of a completion is 1. Right and wrong completions are weighted the same way. If \\( \bar H = 0 \\), all
    weights are 1.

    Args:
        strength (`float`, *optional*, defaults to `1.0`):
            \\( s \in [0, 1] \\); 1 is the paper's weight, 0 none. The parameter is ours.

    Raises `ValueError` for a strength out of range.

    Reference: [PREPO](https://huggingface.co/papers/2511.00794), 2025 (the weight; not its choice of prompts by
    perplexity).
    """

    token_selective: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pool"})

    strength: float = knob(1.0, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.strength == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        mean = tokens.pool.mean_of_rows(mean_entropy)
        relative = torch.where(mean > 0, mean_entropy(tokens) / mean, 1.0)
        weights = 1 + self.strength * (relative - 1)
        return weights.to(tokens.logps.dtype).unsqueeze(1).expand_as(tokens.mask)


def mean_entropy(tokens: Tokens) -> Tensor:
    """`(B,)`: the mean entropy of each completion."""
    # rounding may put the entropy of a confident policy below 0, where a weight must not be
    return tokens.mean_over_row(tokens.entropies.float().clamp(min=0))
