"""An entropy bonus that is stronger on hard prompts, in the style of AER."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...checks import check_number
from ..rule import Rule, knob
from ..tokens import Tokens


@dataclass(frozen=True)
class AerEntropy(Rule):
    r"""
    An entropy bonus that is stronger on hard prompts, in the style of AER.

    $$
    t_t = -\lambda \, d_q \, H_t, \qquad d_q = \max\Big(0, \; 1 - \frac{p_q}{\rho}\Big)
    $$

    with \\( \lambda \\) = `coef`, \\( \rho \\) = `threshold` and \\( p_q \\) the mean reward of the completion's
    group, which is its accuracy for rewards in \\( [0, 1] \\). Completions without a reward do not count, and a group
    without any reward gets no bonus. The term has the gradient of the entropy at every token. AER also wants more
    entropy on hard prompts and adjusts \\( \lambda \\) continuously, as [`~laws.Integral`] does. We could not read its
    equations, so the form is ours.

    Args:
        coef (`float`, *optional*, defaults to `1e-3`):
            \\( \lambda \ge 0 \\), loss per nat. Ours; AER adjusts it during the run.

        threshold (`float`, *optional*, defaults to `1.0`):
            \\( \rho \in (0, 1] \\), the accuracy from which a prompt gets no bonus. Ours: we could not find the
            paper's value. With 1, only prompts that are always solved get none.

    Raises `ValueError` for a value out of range.

    Reference: [Revisiting Entropy Regularization: Adaptive Coefficient Unlocks Its Potential for LLM Reinforcement
    Learning](https://huggingface.co/papers/2510.10959), 2025 (AER).
    """

    origin: ClassVar[str] = "style"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy_gradient", "group_rewards"})

    coef: float = knob(1e-3, low=0.0, raises_entropy=True)
    threshold: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number("threshold", self.threshold, 0.0, 1.0)
        if self.threshold == 0:
            raise ValueError("threshold must be > 0, got 0: with it no prompt gets a bonus; coef 0 turns it off")

    @property
    def neutral(self) -> bool:
        return self.coef == 0.0

    def __call__(self, tokens: Tokens) -> Tensor:
        accuracy = tokens.group_rewards.nanmean(-1, keepdim=True)
        difficulty = (1 - accuracy / self.threshold).clamp(min=0).nan_to_num(nan=0.0)
        return -self.coef * difficulty.to(tokens.entropies.dtype) * tokens.entropies
