"""Subtract a token's log-probability from its advantage."""

from dataclasses import dataclass

from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class Repo(Rule):
    r"""
    Subtract a token's log-probability from its advantage.

    $$
    b_t = -\beta \, L_t, \qquad L_t = \log \pi_\theta(y_t) - \mathrm{mean}
    $$

    Entropy falls to the extent that advantage and log-probability are correlated; \\( L \\) removes that part.
    On-policy, the expected gradient of the bonus is \\( \beta \\) times that of the entropy, without the gradient
    through the whole vocabulary that an entropy bonus in the loss needs. Completions with advantage 0 get the bonus
    too. It has no bound.

    Args:
        beta (`float`, *optional*, defaults to `0.01`):
            \\( \beta \ge 0 \\), advantage per nat. The default is ours: we found no value in the paper.
        center (`str`, *optional*, defaults to `"position"`):
            The mean to subtract: "position" is over the vocabulary at the token's own position, where it is
            \\( -H_t \\) (the paper's); "step" is over all tokens of the optimizer step (ours).

    Raises `ValueError` for a beta out of range, or another center.

    Reference: [Entropy-Preserving Reinforcement Learning](https://huggingface.co/papers/2603.11682), 2026 (REPO).
    """

    beta: float = knob(0.01, low=0.0, raises_entropy=True)
    center: str = "position"

    def __post_init__(self):
        super().__post_init__()
        if self.center not in ("step", "position"):
            raise ValueError(f"center must be 'step' or 'position', got {self.center!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pool"}) if self.center == "step" else frozenset()

    @property
    def neutral(self) -> bool:
        return self.beta == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        mean = tokens.pool.mean(lambda batch: batch.logps) if self.center == "step" else -tokens.entropies
        return self.beta * (mean - tokens.logps)
