"""How far the policy has moved since it generated the rollout."""

from ..rules.tokens import Tokens
from .means import Values


def log_ratio(tokens: Tokens) -> Values:
    r"""\\( |\log \pi_\theta(y_t) - \log \pi_{\text{old}}(y_t)| \\) in nats over all tokens."""
    return {"staleness/log_ratio": ((tokens.logps - tokens.old_logps).abs(), tokens.mask)}
