"""Learn from stored solutions, with more weight on less likely tokens, down to a bound."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...checks import check_number
from ..rule import Rule
from ..tokens import Tokens


@dataclass(frozen=True)
class OfflineShaping(Rule):
    r"""
    Learn from stored solutions, with more weight on less likely tokens, down to a bound.

    $$
    t_t = -\mathbb{1}[o \text{ is a stored solution}] \, \hat A \, f(\pi_\theta(y_t)), \qquad
    f(p) = \frac{p}{p + \gamma}
    $$

    with \\( \gamma \\) = `gamma`: \\( f \\) replaces the importance ratio, which a completion that no policy sampled
    does not have. The weight `sampled_only` removes these completions from TRL's surrogate.

    Args:
        gamma (`float`, *optional*, defaults to `0.1`):
            \\( \gamma > 0 \\).

    Raises `ValueError` for a gamma out of range.

    Reference: [Dissecting Long-CoT Reasoning Models](https://huggingface.co/papers/2506.04913), 2025, after
    [LUFFY](https://huggingface.co/papers/2504.14945), 2025.
    """

    origin: ClassVar[str] = "code"
    follows_loss_type: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"offline"})

    gamma: float = 0.1

    def __post_init__(self):
        check_number("gamma", self.gamma, low=0.0)
        if self.gamma == 0.0:
            raise ValueError("gamma must be above 0: it bounds the gradient of unlikely tokens")

    def __call__(self, tokens: Tokens) -> Tensor:
        probabilities = tokens.logps.exp()
        shaped = probabilities / (probabilities + self.gamma)
        return torch.where(tokens.offline.unsqueeze(1), -tokens.advantages * shaped, 0.0)
