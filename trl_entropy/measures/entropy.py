"""Entropy of the policy, and its split by the sign of the advantage."""

from torch import Tensor

from ..tokens import Tokens


def entropy_by_sign(tokens: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """
    `(sum, count)` of the entropy in nats over all trained tokens, and over those of positive and negative advantage.

    Tokens whose advantage is 0 are in `all` only.
    """
    groups = {
        "all": tokens.mask,
        "positive_advantage": tokens.mask & (tokens.advantages > 0),
        "negative_advantage": tokens.mask & (tokens.advantages < 0),
    }
    entropies = tokens.entropies.detach()
    return {f"entropy/{name}": ((entropies * group).sum(), group.sum()) for name, group in groups.items()}
