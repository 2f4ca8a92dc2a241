"""How far the engine that sampled is from the policy that it had."""

import math

from ..rules.tokens import Tokens
from .means import Values


FACTOR = 2.0  # between two probabilities of a token from which on they count as different; ours


def mismatch(tokens: Tokens) -> Values:
    r"""
    \\( |\log \pi_{\text{old}}(y_t) - \log \mu(y_t)| \\) in nats, and where it is more than \\( \log 2 \\), over the
    tokens that have both; empty if TRL has no log-probs \\( \log \mu \\) of the engine that sampled.
    """
    if tokens.sampling_logps is None:
        return {}
    gaps = (tokens.old_logps - tokens.sampling_logps).abs()
    known = tokens.mask & ~gaps.isnan()
    return {"mismatch/log_ratio": (gaps, known), "mismatch/beyond_factor_2": (gaps > math.log(FACTOR), known)}
