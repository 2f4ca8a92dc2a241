"""Measure tokens by their probability and by the sign of their advantage."""

import math

from ..rules.tokens import Tokens
from .means import Values


LIKELY = 0.5  # probability from which a token counts as likely; ours


def quadrants(tokens: Tokens) -> Values:
    r"""
    The entropy in nats in each quadrant, and the quadrant's share of all trained tokens.

    A token is likely if \\( \pi_\theta(y_t) \ge 1/2 \\), so that no other token is more probable at its place. To
    first order, rewarding it lowers entropy and punishing it raises entropy. For most unlikely tokens it is the other
    way round. Tokens with advantage 0 are in no quadrant.
    """
    likely = tokens.logps >= math.log(LIKELY)
    groups = {}
    for sign, of_sign in (("positive", tokens.positive), ("negative", tokens.negative)):
        groups[f"likely_{sign}"] = of_sign & likely
        groups[f"unlikely_{sign}"] = of_sign > likely  # with this sign, and not likely
    entropies = {f"entropy/{name}": (tokens.entropies, chosen) for name, chosen in groups.items()}
    return entropies | {f"share/{name}": (chosen, tokens.mask) for name, chosen in groups.items()}
