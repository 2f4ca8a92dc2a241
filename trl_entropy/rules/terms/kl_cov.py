"""Hold the tokens with the highest covariance near the old policy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..rule import Rule, knob
from ..scores import covariances
from ..tokens import Tokens


@dataclass(frozen=True)
class KlCov(Rule):
    r"""
    Hold the tokens with the highest covariance near the old policy.

    $$
    t_t = \beta \, d_t \, \mathbb{1}[t \in I], \qquad
    d_t = |x_t| \text{ or } e^{x_t} - 1 - x_t, \quad x_t = \log \pi_\theta(y_t) - \log \pi_{\text{old}}(y_t)
    $$

    with \\( \beta \\) = `coef`, \\( \kappa \\) = `share`, and \\( I \\) the \\( \lfloor \kappa N \rfloor \\) of the
    \\( N \\) tokens of the optimizer step with the largest covariance \\( c_t \\) of [`~weights.ClipCov`], at least
    one. Strictly on-policy, both value and gradient are 0. The released code does not clip the main loss.

    Args:
        coef (`float`, *optional*, defaults to `1.0`):
            \\( \beta \ge 0 \\), the strength (the paper's); `0.0` turns the term off.
        share (`float`, *optional*, defaults to `2e-3`):
            \\( \kappa \in [0, 1] \\), the share of tokens it acts on (the paper's value for 7B models; 2e-4 for 32B).

        divergence (`str`, *optional*, defaults to `"abs"`):
            "abs" is \\( |x| \\), as in the released code; "k3" is \\( e^x - 1 - x \\), whose mean over samples of the
            old policy is the paper's \\( \mathrm{KL}(\pi_{\text{old}} \| \pi_\theta) \\).

    Raises `ValueError` for a value out of range, or another divergence.

    Reference: [The Entropy Mechanism of Reinforcement Learning for Reasoning Language
    Models](https://huggingface.co/papers/2505.22617), 2025 (KL-Cov).
    """

    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"pool"})
    follows_loss_type: ClassVar[bool] = True

    coef: float = knob(1.0, low=0.0)
    share: float = knob(2e-3, low=0.0, high=1.0)
    divergence: str = "abs"

    def __post_init__(self):
        super().__post_init__()
        if self.divergence not in ("abs", "k3"):
            raise ValueError(f"divergence must be 'abs' or 'k3', got {self.divergence!r}")

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0 or self.share == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        chosen = tokens.pool.top(tokens, covariances(tokens.pool), tokens.pool.share(self.share))
        change = torch.where(chosen, tokens.logps - tokens.old_logps, 0.0)
        return self.coef * (change.abs() if self.divergence == "abs" else change.exp() - 1 - change)
