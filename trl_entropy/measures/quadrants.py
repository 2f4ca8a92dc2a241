"""Tokens by how likely they are and by the sign of their advantage."""

import math

from ..tokens import Tokens
from .means import Values


LIKELY = 0.5  # probability from which on a token is likely; ours


def quadrants(tokens: Tokens) -> Values:
    r"""
    The entropy in nats in each quadrant, and the share of all trained tokens that it holds.

    A token is likely if \\( \pi_\theta(y_t) \ge 1/2 \\), so that no other is more probable at its place: to first
    order, rewarding it lowers entropy and punishing it raises it. With most unlikely tokens it is the other way round.
    Tokens of advantage 0 are in no quadrant.
    """
    likely = tokens.logps >= math.log(LIKELY)
    signs = {"positive": tokens.advantages > 0, "negative": tokens.advantages < 0}
    groups = {
        f"{name}_{sign}": chosen & of_sign
        for name, chosen in (("likely", likely), ("unlikely", ~likely))
        for sign, of_sign in signs.items()
    }
    entropies = {f"entropy/{name}": (tokens.entropies, chosen) for name, chosen in groups.items()}
    return entropies | {f"share/{name}": (chosen, tokens.mask) for name, chosen in groups.items()}
