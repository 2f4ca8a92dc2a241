"""Drop the tokens whose update would move entropy most, judged against the step."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule, knob
from ..scores import check_sides, discriminator, without_outliers
from ..tokens import Tokens


@dataclass(frozen=True)
class ClipB(Rule):
    r"""
    Drop the tokens whose update would move entropy most, judged against the step.

    $$
    w_t = 0 \text{ if } \hat A_t < 0 \text{ and } S_t - \bar S < -\mu \sigma, \quad 1 \text{ otherwise}, \qquad
    S_t = \pi_\theta(y_t) \, (H_t + \log \pi_\theta(y_t))
    $$

    with \\( \bar S, \sigma \\) the mean and standard deviation of \\( S \\) over the optimizer step. To first order,
    an update on a token changes entropy by \\( -\hat A_t (S_t - \mathbb{E}_{v \sim \pi} S_v) \\) times the step size.
    So the released code, shown above, drops the penalized tokens that lower entropy most. The general form,
    `sides="both"`, drops tokens with either sign and \\( |S_t - \bar S| > \mu \sigma \\). A weight of 0 keeps the
    token in the denominator of the loss.

    Args:
        mu (`float`, *optional*, defaults to `2.5`):
            \\( \mu \ge 0 \\), the distance in standard deviations beyond which tokens are dropped (the released
            value); a smaller value drops more.
        max_share (`float`, *optional*, defaults to `1.0`):
            In [0, 1]: the largest share of all tokens that may be dropped, the farthest first. It allows at least one
            token, but `0.0` drops none and `1.0` sets no limit. Ours, after [`~weights.ClipV`].

        sides (`str`, *optional*, defaults to `"negative_low"`):
            "negative_low" or "both": the released or the general form.

    Raises `ValueError` for a value out of range, or other sides.

    Reference: [On the Entropy Dynamics in Reinforcement Fine-Tuning of Large Language
    Models](https://huggingface.co/papers/2602.03392), 2026 (Clip_B).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"pool"})

    mu: float = knob(2.5, low=0.0)
    max_share: float = knob(1.0, low=0.0, high=1.0)
    sides: str = "negative_low"

    def __post_init__(self):
        super().__post_init__()
        check_sides(self.sides)

    @property
    def neutral(self) -> bool:
        return self.max_share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        mean = tokens.pool.mean(discriminator)
        return without_outliers(tokens, lambda batch: discriminator(batch) - mean, self.mu, self.max_share, self.sides)
