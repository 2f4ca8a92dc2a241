"""Covariance of log-probability and advantage over an optimizer step."""

from collections.abc import Mapping

from ..rules.tokens import Tokens
from .means import Values


LOGP, ADVANTAGE, PRODUCT = (f"_covariance/{name}" for name in ("logp", "advantage", "product"))


def covariance_parts(tokens: Tokens) -> Values:
    """The three means over all trained tokens that [`covariance`] needs."""
    values = {LOGP: tokens.logps, ADVANTAGE: tokens.advantages, PRODUCT: tokens.logps * tokens.advantages}
    return {name: (value, tokens.mask) for name, value in values.items()}


def covariance(means: Mapping[str, float]) -> dict[str, float]:
    r"""
    \\( \overline{\log \pi_\theta(y_t) \hat A_t} - \overline{\log \pi_\theta(y_t)} \; \overline{\hat A_t} \\) in nats.

    The means are over all trained tokens of the step, on all ranks. In a single state, a step of the natural policy
    gradient changes entropy, to first order, by minus this covariance times the step size. For the vanilla policy
    gradient the factor is minus the covariance of \\( \log \pi \\) and \\( \pi A \\), whose sign may differ:
    `entropy_change/predicted` uses that one.

    Reference: [The Entropy Mechanism of Reinforcement Learning for Reasoning Language
    Models](https://huggingface.co/papers/2505.22617), 2025.
    """
    if PRODUCT not in means:
        return {}
    return {"covariance/logp_advantage": means[PRODUCT] - means[LOGP] * means[ADVANTAGE]}
