import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.measures.quadrants import quadrants


def test_quadrants_by_hand():
    # probabilities 0.9, 0.5 | 0.4, 0.1 with positive and negative advantage, and one token of advantage 0
    logps = torch.tensor([[0.9, 0.5, 0.4], [0.6, 0.1, 0.2], [0.9, 0.9, 0.1]]).log()
    advantages = torch.tensor([[1.0], [-1.0], [0.0]]).expand(3, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    entropies = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    values = quadrants(Tokens(logps, logps, entropies, advantages, mask))
    assert {name: (value[chosen].sum().item(), chosen.sum().item()) for name, (value, chosen) in values.items()} == {
        "entropy/likely_positive": (3.0, 2),
        "entropy/likely_negative": (8.0, 1),
        "entropy/unlikely_positive": (4.0, 1),
        "entropy/unlikely_negative": (16.0, 1),
        "share/likely_positive": (2.0, 6),
        "share/likely_negative": (1.0, 6),
        "share/unlikely_positive": (1.0, 6),
        "share/unlikely_negative": (1.0, 6),
    }


def entropy_change(logits: torch.Tensor, token: int) -> float:
    """Derivative of the entropy along the gradient of the token's log-probability, by autograd."""
    logits = logits.clone().requires_grad_()
    logps = logits.log_softmax(-1)
    (up,) = torch.autograd.grad(logps[token], logits, retain_graph=True)
    (slope,) = torch.autograd.grad(-(logps.exp() * logps).sum(), logits)
    return (up * slope).sum().item()


@pytest.mark.parametrize("seed", range(20))
def test_rewarding_a_likely_token_lowers_entropy(seed):
    logits = torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[0] = logits[1:].logsumexp(0) + seed / 10  # probability 1/2 and more
    assert logits.softmax(-1)[0] >= 0.5 - 1e-12
    assert entropy_change(logits, 0) < 0
    changes = [entropy_change(logits, token) for token in range(1, 9)]
    assert sum(change > 0 for change in changes) >= 6  # most, not all
