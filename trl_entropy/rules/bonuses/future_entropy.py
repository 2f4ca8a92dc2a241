"""Credit tokens with the entropy that comes after them."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class FutureEntropy(Rule):
    r"""
    Credit tokens with the entropy that comes after them.

    $$
    b_t = \beta \, (F_t - \mathrm{baseline}), \qquad F_t = \sum_{j > t} H_j
    $$

    over the trained tokens of the completion. The form is ours: the soft return of one answer with discount 1 and a
    uniform reference policy, without a critic. The sum grows with the length of the answer and the bonus has no bound,
    so long answers need a smaller \\( \beta \\). Completions with advantage 0 get the bonus too.

    Args:
        beta (`float`, *optional*, defaults to `0.01`):
            \\( \beta \ge 0 \\), advantage per nat (ours).
        baseline (`str`, *optional*, defaults to `"mean"`):
            "mean" is the mean of \\( F \\) over the tokens of the optimizer step, "none" is 0 (ours).

    Raises `ValueError` for a beta out of range or another baseline.

    Reference: [Entropy-Regularized Token-Level Policy Optimization](https://huggingface.co/papers/2402.06700), 2024.
    """

    origin: ClassVar[str] = "style"

    beta: float = knob(0.01, low=0.0)
    baseline: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        if self.baseline not in ("mean", "none"):
            raise ValueError(f"baseline must be 'mean' or 'none', got {self.baseline!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pool"}) if self.baseline == "mean" else frozenset()

    @property
    def neutral(self) -> bool:
        return self.beta == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        future = entropy_after(tokens)
        if self.baseline == "mean":
            future = future - tokens.pool.mean(entropy_after)
        return (self.beta * future).to(tokens.logps.dtype)


def entropy_after(tokens: Tokens) -> Tensor:
    """`(B, T)`: the sum of the entropies of the later tokens of the completion."""
    entropies = tokens.entropies.float()
    return entropies.flip(-1).cumsum(-1).flip(-1) - entropies
