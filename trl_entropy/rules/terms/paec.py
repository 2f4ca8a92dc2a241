"""An entropy bonus on the likely tokens where two of them compete, in the style of PAEC."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...checks import check_number
from ..looks import TopPEntropy, TopTwoRatio
from ..rule import Rule, knob
from ..scores import weighted_by
from ..tokens import Tokens


@dataclass(frozen=True)
class Paec(Rule):
    r"""
    An entropy bonus on the likely tokens where two of them compete, in the style of PAEC.

    $$
    t_t = -c \, w_t \, \tilde H_t, \qquad w_t = \frac{m_t}{\mathrm{mean}_{\text{completion}} \, m}, \quad
    m_t = \mathrm{sg}\Big(\tilde H_t \, \frac{\pi_{(2)}}{\pi_{(1)}}\Big)
    $$

    \\( \tilde H \\) is the entropy of the most likely tokens up to a mass of \\( p \\), normalized again, and
    \\( \pi_{(1)}, \pi_{(2)} \\) are the two largest probabilities. PAEC also has a soft mask from these two, and a
    penalty only below an anchor. So the preset `paec` turns \\( c \\) in proportion to how far the mean of
    \\( w \tilde H \\) over tokens, the signal `entropy/loss_terms.paec`, is below its start. We could not read PAEC's
    equations, so the form of the mask is ours.

    Args:
        coef (`float`, *optional*, defaults to `0.0`):
            \\( c \ge 0 \\), loss per nat; PAEC adjusts it during the run.

        p (`float`, *optional*, defaults to `0.8`):
            \\( p \in (0, 1] \\), the mass. Ours; it is SIREN's value.

    Raises `ValueError` for a value out of range.

    Reference: [PAEC: Position-Aware Entropy Calibration for LLM Reasoning in
    RLVR](https://huggingface.co/papers/2606.08543), 2026.
    """

    origin: ClassVar[str] = "style"

    coef: float = knob(0.0, low=0.0)
    p: float = 0.8

    def __post_init__(self):
        check_number("p", self.p, 0.0, 1.0)
        if self.p == 0:
            raise ValueError("p must be > 0, got 0: no token would be left; coef 0 turns the term off")
        super().__post_init__()

    @property
    def needs(self) -> frozenset:
        return frozenset({TopPEntropy(self.p), TopTwoRatio()})

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        return -self.coef * self._weighted(tokens)

    def watched(self, tokens: Tokens, values: Tensor) -> tuple[Tensor, Tensor]:
        return self._weighted(tokens), tokens.mask

    def _weighted(self, tokens: Tokens) -> Tensor:
        entropies = tokens.look(TopPEntropy(self.p))
        return weighted_by(tokens, entropies.detach() * tokens.look(TopTwoRatio())) * entropies
