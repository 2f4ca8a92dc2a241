"""Train only on the tokens with the highest entropy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class HighEntropy(Rule):
    r"""
    Train only on the tokens with the highest entropy.

    $$
    w_t = \mathbb{1}[H_t \ge Q_{1-\rho}(H)]
    $$

    with \\( Q \\) the quantile over the optimizer step. TRL has this rule as `top_entropy_quantile`, with the quantile
    of a micro-batch: use that flag. With one micro-batch per step both give the same loss, bit for bit. The rule is
    here as a reference for the tests, and as a 0/1 weight that multiplies with the others. A weight of 0 keeps the
    token in the denominator of the loss.

    Args:
        fraction (`float`, *optional*, defaults to `0.2`):
            \\( \rho \in [0, 1] \\), the share of tokens that is kept; `1.0` keeps all.

    Raises `ValueError` for a fraction out of range.

    Reference: Wang et al., [Beyond the 80/20 Rule](https://huggingface.co/papers/2506.01939), 2025.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pool"})

    fraction: float = knob(0.2, low=0.0, high=1.0)

    @property
    def neutral(self) -> bool:
        return self.fraction == 1.0

    def __call__(self, tokens: Tokens) -> Tensor:
        threshold = tokens.pool.quantile(lambda batch: batch.entropies, 1 - self.fraction)
        return (tokens.entropies.float() >= threshold).to(tokens.entropies.dtype)
