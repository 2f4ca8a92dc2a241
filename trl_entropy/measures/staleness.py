"""Measure how old the rollout is, and how far the policy has moved since."""

from ..rules.tokens import Tokens
from .means import Values


def staleness(tokens: Tokens) -> Values:
    r"""
    Over all tokens: the number of policy versions since they were sampled, and
    \\( |\log \pi_\theta(y_t) - \log \pi_{\text{old}}(y_t)| \\) in nats.
    """
    return {
        "staleness/updates": (tokens.staleness, tokens.mask),
        "staleness/log_ratio": ((tokens.logps - tokens.old_logps).abs(), tokens.mask),
    }
