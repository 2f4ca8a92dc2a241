import torch
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.measures import entropy_by_sign


def test_sums_and_counts_by_hand():
    entropies = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    advantages = torch.tensor([[1.0], [-1.0], [0.0]]).expand(3, 3)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    parts = entropy_by_sign(Tokens(entropies, entropies, entropies, advantages, mask))
    # 1 + 2 = 3 of two tokens, 8 + 16 + 32 = 56 of three, and the 64 of advantage 0 in `all` only: 123 of six
    assert {name: (total.item(), count.item()) for name, (total, count) in parts.items()} == {
        "entropy/all": (123.0, 6),
        "entropy/positive_advantage": (3.0, 2),
        "entropy/negative_advantage": (56.0, 3),
    }


def test_parts_carry_no_gradient():
    entropies = torch.ones(4, 5, requires_grad=True)
    parts = entropy_by_sign(random_tokens(entropies=entropies))
    assert not any(value.requires_grad for pair in parts.values() for value in pair)
