"""A rule that the study ran and that the package does not have: REPO-R without its bounds."""

from dataclasses import dataclass

from torch import Tensor

from trl_entropy import Rule, Tokens
from trl_entropy.tokens import knob


@dataclass(frozen=True)
class UnclampedRepoR(Rule):
    r"""
    REPO-R without its bounds: a wrong token less likely than \\( e^{-1/\zeta} \\) is rewarded.

    $$
    b_t = -\zeta \, |\hat A_t| \, \log \pi_\theta(y_t)
    $$

    Args:
        zeta (`float`, *optional*, defaults to `0.1`):
            \\( \zeta \in [0, 1] \\), share of the advantage per nat; the paper has it up to 0.05.

    Raises `ValueError` for a zeta out of range.
    """

    zeta: float = knob(0.1, low=0.0, high=1.0, raises_entropy=True)

    @property
    def neutral(self) -> bool:
        return self.zeta == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        return -self.zeta * tokens.advantages.abs() * tokens.logps
