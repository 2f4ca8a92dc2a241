"""Predict the change of entropy by an optimizer step, to first order, by the sign of the advantage."""

from collections.abc import Mapping

from torch import Tensor

from ..rules.scores import discriminator, excess
from ..rules.tokens import Tokens
from .means import Values


SIGNS = ("positive", "negative")
SCORE = "_change/score"


def change_parts(tokens: Tokens, slopes: Tensor) -> Values:
    """The means over all trained tokens that [`predicted_change`] needs; slopes from [`surrogate_slopes`]."""
    exact = tokens.expected_discriminator is not None
    score = excess(tokens) if exact else discriminator(tokens)
    values = {} if exact else {SCORE: score}
    for sign, part in zip(SIGNS, (slopes.clamp(min=0), slopes.clamp(max=0)), strict=True):
        values |= {f"_change/{sign}": part, f"_change/{sign}_score": part * score}
    return {name: (value, tokens.mask) for name, value in values.items()}


def predicted_change(means: Mapping[str, float]) -> dict[str, float]:
    r"""
    The effect of a step's policy gradient on the entropy of its tokens, to first order, in nats per unit step.

    $$
    \Delta H = -\overline{g_t \, (S_t - \mathbb{E}_{v \sim \pi}[S_v])}, \qquad S_v = \pi_v (H + \log \pi_v)
    $$

    with \\( g_t \\) from [`surrogate_slopes`] and means over all trained tokens of the step, on all ranks. The values
    of the two signs add up to the total. If the expectation over the vocabulary is not available, the mean of
    \\( S_t \\) over the step replaces it: \\( -(\overline{g S} - \overline{g} \; \overline{S}) \\).

    Take a table of logits and gradient ascent on \\( \overline{g_t \log \pi(y_t)} \\). If all tokens share one row of
    the table, the exact form is the derivative of the mean entropy by the learning rate; if each token has its own
    row, it is that derivative times the number of tokens. With shared weights and Adam the size of a step is unknown,
    so only the sign, the split and the trend over a run are meaningful. Loss terms, the KL penalty, the entropy bonus
    and momentum are left out, and every token counts the same, as in the losses `dapo` and `bnpo`.

    Reference: [On the Entropy Dynamics in Reinforcement Fine-Tuning of Large Language
    Models](https://huggingface.co/papers/2602.03392), 2026.
    """
    if "_change/positive" not in means:
        return {}
    mean_score = means.get(SCORE, 0.0)
    parts = {sign: means[f"_change/{sign}"] * mean_score - means[f"_change/{sign}_score"] for sign in SIGNS}
    by_sign = {f"entropy_change/predicted_{sign}": part for sign, part in parts.items()}
    return {"entropy_change/predicted": sum(parts.values()), **by_sign}
