"""Add to the advantage of unlikely tokens, in proportion to its size."""

from dataclasses import dataclass

from torch import Tensor

from ..tokens import Rule, Tokens, knob


@dataclass(frozen=True)
class RepoR(Rule):
    r"""
    Add to the advantage of unlikely tokens, in proportion to its size.

    $$
    b_t = -\zeta \, |\hat A_t| \, \log \pi_\theta(y_t)
    $$

    The same as the paper's \\( \hat A_t (1 - \zeta \log \pi_\theta(y_t)) \\) for positive and
    \\( \hat A_t (1 + \zeta \log \pi_\theta(y_t)) \\) for negative advantages: [`~bonuses.Repo`] with the strength
    \\( \zeta |\hat A_t| \\) and without its mean. A wrong token less likely than \\( e^{-1/\zeta} \\) is rewarded.

    Args:
        zeta (`float`, *optional*, defaults to `0.1`):
            \\( \zeta \in [0, 1] \\), share of the advantage per nat. Default and range are ours: the paper doubles it
            while entropy is below its start and halves it while above, from a value that we could not find.

    Raises `ValueError` for a zeta out of range.

    Reference: [Entropy-Preserving Reinforcement Learning](https://huggingface.co/papers/2603.11682), 2026 (REPO-R).
    """

    zeta: float = knob(0.1, low=0.0, high=1.0, raises_entropy=True)

    @property
    def neutral(self) -> bool:
        return self.zeta == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        return -self.zeta * tokens.advantages.abs() * tokens.logps
