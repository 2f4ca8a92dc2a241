"""Give all-correct groups their signal back, as if one more completion had been wrong."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens, is_correct


@dataclass(frozen=True)
class PseudoNegative(Rule):
    r"""
    Give all-correct groups their signal back, as if one more completion had been wrong.

    $$
    b_t = \lambda \, \mathbb{1}[\text{all } G \text{ correct}] \, \frac{1}{\sqrt G}
    $$

    with \\( \lambda \\) = `coef`. \\( 1 / \sqrt G \\) is the standardized advantage of a reward of 1 among \\( G \\)
    rewards of 1 and one of 0: mean \\( G / (G + 1) \\), standard deviation \\( \sqrt G / (G + 1) \\). The virtual
    completion has no gradient. A completion is correct if its reward is above 0.5.

    Args:
        coef (`float`, *optional*, defaults to `1.0`):
            \\( \lambda \ge 0 \\).

    Raises `ValueError` for a coefficient out of range.

    Reference: in the style of [ERPO](https://huggingface.co/papers/2511.04800), 2025, whose constant was not
    published: the form is ours.
    """

    token_selective: ClassVar[bool] = False
    origin: ClassVar[str] = "style"
    only_solved_groups: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"group_rewards"})

    coef: float = knob(1.0, low=0.0)

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        solved = is_correct(tokens.group_rewards).all(1, keepdim=True)
        size = tokens.group_rewards.shape[1]
        return torch.where(solved, self.coef / size**0.5, 0.0).to(tokens.logps.dtype).expand_as(tokens.mask)
