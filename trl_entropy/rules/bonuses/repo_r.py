"""Raise the advantage of unlikely tokens in proportion to its size."""

from dataclasses import dataclass

from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


LEAST_LOGP = -20.0


@dataclass(frozen=True)
class RepoR(Rule):
    r"""
    Raise the advantage of unlikely tokens in proportion to its size.

    $$
    b_t = A'_t - \hat A_t, \qquad
    A'_t = \max(0, \hat A_t (1 - \zeta \ell_t)) \text{ if } \hat A_t > 0, \quad
    \min(0, \hat A_t (1 + \zeta \ell_t)) \text{ if } \hat A_t < 0, \qquad
    \ell_t = \max(\log \pi_\theta(y_t), -20)
    $$

    Without the bounds this is \\( -\zeta |\hat A_t| \log \pi_\theta(y_t) \\): [`~bonuses.Repo`] with the strength
    \\( \zeta |\hat A_t| \\) and without its mean. The bounds keep the sign of the advantage. A negative \\( \zeta \\)
    lowers entropy.

    Args:
        zeta (`float`, *optional*, defaults to `0.001`):
            \\( \zeta \in [-0.05, 0.05] \\), share of the advantage per nat. The range is the paper's, second-hand. The
            default is SkyRL's; the paper's controller [`~laws.Ratchet`] turns it from there.

    Raises `ValueError` for a zeta out of range.

    Reference: [Entropy-Preserving Reinforcement Learning](https://huggingface.co/papers/2603.11682), 2026 (REPO-R; the
    bounds are from its Appendix D.2, as quoted by [SkyRL](https://github.com/NovaSky-AI/SkyRL/pull/1896)).
    """

    zeta: float = knob(0.001, low=-0.05, high=0.05, raises_entropy=True)

    @property
    def neutral(self) -> bool:
        return self.zeta == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        logps = tokens.logps.clamp(min=LEAST_LOGP)
        # as a share of the advantage; below -1 the sum would change its sign
        share = (-self.zeta * tokens.advantages.sign() * logps).clamp(min=-1)
        return share * tokens.advantages
