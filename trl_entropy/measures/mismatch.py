"""The distance between the sampling engine and the policy that it was given."""

import math

from ..rules.tokens import Tokens
from .means import Values


FACTOR = 2.0  # from this factor on, two probabilities of a token count as different; ours


def mismatch(tokens: Tokens) -> Values:
    r"""
    \\( |\log \pi_{\text{old}}(y_t) - \log \mu(y_t)| \\) in nats, and the share where it exceeds \\( \log 2 \\), over
    the tokens that have both log-probs; empty if TRL has no log-probs \\( \log \mu \\) from the sampling engine.
    """
    if tokens.sampling_logps is None:
        return {}
    gaps = (tokens.old_logps - tokens.sampling_logps).abs()
    known = tokens.mask & ~gaps.isnan()
    return {"mismatch/log_ratio": (gaps, known), "mismatch/beyond_factor_2": (gaps > math.log(FACTOR), known)}
