"""An entropy bonus on the likely tokens alone, at the positions where entropy peaks (SIREN)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...checks import check_number
from ..looks import TopPEntropy
from ..rule import Rule, knob
from ..scores import row_quantile, weighted_by
from ..tokens import Tokens


@dataclass(frozen=True)
class Siren(Rule):
    r"""
    An entropy bonus on the likely tokens alone, at the positions where entropy peaks (SIREN).

    $$
    t_t = -c \, w_t \, \tilde H_t, \qquad w_t = \frac{L}{|P|} \, \mathbb{1}[t \in P], \quad
    P = \{t : \tilde H_t > \text{the } q\text{-quantile of } \tilde H \text{ in the completion}\}
    $$

    \\( \tilde H \\) is the entropy of the most likely tokens up to a mass of \\( p \\), normalized again, and
    \\( L \\) the number of the completion's tokens. The mean of \\( w \tilde H \\) over tokens, \\( M \\), is the
    signal `entropy/loss_terms.siren`. SIREN's loss \\( \gamma (M - M_0)^2 \\), with \\( M_0 \\) from the start of the
    run, has the gradient of this term at \\( c = 2 \gamma (M_0 - M) \\). That is a proportional law, which the preset
    `siren` uses with the \\( M \\) of the previous optimizer step.

    Args:
        coef (`float`, *optional*, defaults to `0.0`):
            \\( c \\), loss per nat; a negative value lowers entropy. SIREN adjusts it during the run.

        p (`float`, *optional*, defaults to `0.8`):
            \\( p \in (0, 1] \\), the mass (the released value).
        quantile (`float`, *optional*, defaults to `0.8`):
            \\( q \in [0, 1) \\), the quantile (the released value).
        reaching (`bool`, *optional*, defaults to `False`):
            Whether the token that reaches \\( p \\) counts as likely, as in nucleus sampling. The released code leaves
            it out.

    Raises `ValueError` for a value out of range.

    Reference: [Rethinking Entropy Regularization in Large Reasoning
    Models](https://huggingface.co/papers/2509.25133), 2025 (SIREN).
    """

    origin: ClassVar[str] = "code"

    coef: float = knob(0.0)
    p: float = 0.8
    quantile: float = 0.8
    reaching: bool = False

    def __post_init__(self):
        for name in ("p", "quantile"):
            check_number(name, getattr(self, name), 0.0, 1.0)
        if self.p == 0 or self.quantile == 1:
            raise ValueError(
                f"p must be > 0 and quantile < 1, got p={self.p:g} and quantile={self.quantile:g}: no token would be "
                "left; coef 0 turns the term off"
            )
        super().__post_init__()

    @property
    def needs(self) -> frozenset:
        return frozenset({TopPEntropy(self.p, self.reaching)})

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        return -self.coef * self._weighted(tokens)

    def watched(self, tokens: Tokens, values: Tensor) -> tuple[Tensor, Tensor]:
        return self._weighted(tokens), tokens.mask

    def _weighted(self, tokens: Tokens) -> Tensor:
        entropies = tokens.look(TopPEntropy(self.p, self.reaching))
        peaks = entropies > row_quantile(tokens, entropies, self.quantile)
        return weighted_by(tokens, peaks.to(entropies.dtype)) * entropies
