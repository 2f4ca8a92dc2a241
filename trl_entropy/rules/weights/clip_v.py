"""Drop the tokens whose update would move entropy most, judged against the vocabulary."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule, knob
from ..scores import check_sides, excess, without_outliers
from ..tokens import Tokens


@dataclass(frozen=True)
class ClipV(Rule):
    r"""
    Drop the tokens whose update would move entropy most, judged against the vocabulary.

    $$
    w_t = 0 \text{ if } \hat A_t < 0 \text{ and } D_t < -\mu \sigma, \quad 1 \text{ otherwise}, \qquad
    D_t = S_t - \sum_v \pi_v S_v, \quad S_v = \pi_v (H + \log \pi_v)
    $$

    [`~weights.ClipB`] with the expectation at the token's own position instead of the mean over the step. To first
    order, an update changes entropy by \\( -\hat A_t D_t \\) times the step size. \\( \sigma \\) is the standard
    deviation of \\( D \\) around its mean over the optimizer step. As in the released code, the threshold is not
    shifted by that mean. A weight of 0 keeps the token in the denominator of the loss.

    Args:
        mu (`float`, *optional*, defaults to `8.5`):
            \\( \mu \ge 0 \\), the distance in standard deviations beyond which tokens are dropped; a smaller value
            drops more. The default is the value in the released settings; the released class defaults to 2.0.
        max_share (`float`, *optional*, defaults to `1e-4`):
            In [0, 1]: the largest share of all tokens that may be dropped, the farthest first (the released value). It
            allows at least one token, but `0.0` drops none.

        sides (`str`, *optional*, defaults to `"negative_low"`):
            "negative_low" is the released form; "both" drops tokens with either sign and \\( |D_t| > \mu \sigma \\).

    Raises `ValueError` for a value out of range, or other sides.

    Reference: [On the Entropy Dynamics in Reinforcement Fine-Tuning of Large Language
    Models](https://huggingface.co/papers/2602.03392), 2026 (Clip_V).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"pool", "expected_discriminator"})

    mu: float = knob(8.5, low=0.0)
    max_share: float = knob(1e-4, low=0.0, high=1.0)
    sides: str = "negative_low"

    def __post_init__(self):
        super().__post_init__()
        check_sides(self.sides)

    @property
    def neutral(self) -> bool:
        return self.max_share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        return without_outliers(tokens, excess, self.mu, self.max_share, self.sides)
