"""Train for solving the prompt in at least one of k attempts."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...checks import check_whole_number
from ..rule import Rule, knob
from ..tokens import Tokens, is_correct, is_incorrect


@dataclass(frozen=True)
class PassK(Rule):
    r"""
    Train for solving the prompt in at least one of k attempts.

    $$
    b_t = s \, (A^*_t - \hat A_t), \qquad
    A^*_{\text{right}} = \frac{1 - \rho}{\sigma + 10^{-6}}, \quad
    A^*_{\text{wrong}} = \frac{1 - \rho - \binom{W - 1}{k - 1} \big/ \binom{G - 1}{k - 1}}{\sigma + 10^{-6}}
    $$

    with \\( \rho = 1 - \binom{W}{k} / \binom{G}{k} \\), the chance that at least one of \\( k \\) out of the \\( G \\)
    completions is right, \\( W \\) the number of wrong ones, \\( \sigma = (\rho (1 - \rho))^{1/2} \\), \\( s \\) =
    `strength`. It is the mean advantage of the sets of \\( k \\) completions that a completion is in, where a set has
    the reward of its best completion. A completion is right if its reward is above 0.5. If fewer than \\( k \\) are
    wrong, or all are, all advantages are 0. Completions without a reward do not count and have advantage 0.

    Args:
        k (`int`, *optional*, defaults to `4`):
            Number of attempts, from 1 to `num_generations`. 1 is GRPO. The default is ours.
        strength (`float`, *optional*, defaults to `1.0`):
            \\( s \in [0, 1] \\); 1 is the paper's advantage, 0 TRL's. The parameter is ours.

    Raises `ValueError` for a value out of range.

    Reference: Chen et al., [Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning
    Models](https://huggingface.co/papers/2508.10751), 2025 (the analytical derivation).
    """

    token_selective: ClassVar[bool] = False
    replaces_advantage: ClassVar[bool] = True
    origin: ClassVar[str] = "code"
    needs: ClassVar[frozenset[str]] = frozenset({"group_rewards"})

    k: int = 4
    strength: float = knob(1.0, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number("k", self.k)

    @property
    def neutral(self) -> bool:
        return self.strength == 0.0

    @property
    def least_generations(self) -> int:
        return self.k

    def __call__(self, tokens: Tokens) -> Tensor:
        wrong = is_incorrect(tokens.group_rewards).sum(-1, keepdim=True)
        count = wrong + is_correct(tokens.group_rewards).sum(-1, keepdim=True)
        places = torch.arange(self.k, device=wrong.device)
        # place by place in a set, the chance that a wrong completion comes there too
        chances = (wrong - places).clamp(min=0) / (count - places).clamp(min=1)
        unsolved, with_a_wrong_one = chances.prod(-1), chances[:, 1:].prod(-1)
        std = (unsolved * (1 - unsolved)).sqrt() + 1e-6
        wanted = torch.where(is_correct(tokens.rewards), unsolved, unsolved - with_a_wrong_one) / std
        wanted = torch.where(tokens.rewards.isnan() | (count.squeeze(-1) < self.k), 0.0, wanted)
        return (self.strength * (wanted.unsqueeze(1) - tokens.advantages)).to(tokens.logps.dtype)
