"""Push right completions up and wrong ones down by fixed amounts, whatever their group did."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens, is_correct, is_incorrect


@dataclass(frozen=True)
class WReinforce(Rule):
    r"""
    Push right completions up and wrong ones down by fixed amounts, whatever their group did.

    $$
    b_t = A'_t - \hat A_t, \qquad
    A'_t = \lambda_+ \text{ if right}, \quad -\lambda_- \text{ if wrong}, \quad 0 \text{ without a reward}
    $$

    with \\( \lambda_+ \\) = `positive_coef` and \\( \lambda_- \\) = `negative_coef`. There is no baseline and no
    scale, so groups in which all completions are wrong train too. A completion is right if its reward is above 0.5.
    (0.1, 1) is W-REINFORCE, (0, 1) NSR and (1, 0) PSR. The rule replaces the advantage that a weight would multiply,
    so weights are refused beside it.

    Args:
        positive_coef (`float`, *optional*, defaults to `0.1`):
            \\( \lambda_+ \ge 0 \\), the advantage of a right completion (the paper's).
        negative_coef (`float`, *optional*, defaults to `1.0`):
            \\( \lambda_- \ge 0 \\); the advantage of a wrong one is minus this (the paper's).

    Raises `ValueError` for a coefficient out of range.

    Reference: Zhu et al., [The Surprising Effectiveness of Negative Reinforcement in LLM
    Reasoning](https://huggingface.co/papers/2506.01347), 2025 (W-REINFORCE, NSR, PSR).
    """

    token_selective: ClassVar[bool] = False
    replaces_advantage: ClassVar[bool] = True
    origin: ClassVar[str] = "code"

    positive_coef: float = knob(0.1, low=0.0, raises_entropy=False)
    negative_coef: float = knob(1.0, low=0.0, raises_entropy=True)

    def __call__(self, tokens: Tokens) -> Tensor:
        right, wrong = is_correct(tokens.rewards), is_incorrect(tokens.rewards)
        wanted = self.positive_coef * right - self.negative_coef * wrong.float()
        return (wanted.unsqueeze(1) - tokens.advantages).to(tokens.logps.dtype)
