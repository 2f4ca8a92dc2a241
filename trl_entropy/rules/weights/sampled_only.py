"""Drop the completions that the policy did not sample."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule
from ..tokens import Tokens


@dataclass(frozen=True)
class SampledOnly(Rule):
    r"""
    Drop the completions that the policy did not sample.

    $$
    w_t = \mathbb{1}[o \text{ was sampled}]
    $$

    `offline_injection` replaces wrong completions by stored solutions. These have no importance ratio, so the term
    `offline_shaping` trains on them instead.

    Reference: [Dissecting Long-CoT Reasoning Models](https://huggingface.co/papers/2506.04913), 2025.
    """

    token_selective: ClassVar[bool] = False
    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"offline"})

    def __call__(self, tokens: Tokens) -> Tensor:
        return (~tokens.offline).to(tokens.logps.dtype).unsqueeze(1).expand_as(tokens.mask)
