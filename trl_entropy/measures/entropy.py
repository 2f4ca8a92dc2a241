"""The policy's entropy, in total and by sign of the advantage, by correctness and by position."""

import torch

from ..rules.tokens import Tokens, is_correct, is_incorrect
from .means import Values


def entropy_by_sign(tokens: Tokens) -> Values:
    """
    The entropy in nats over all trained tokens, and over those with positive and with negative advantage.

    Tokens whose advantage is 0 only count in the first. The entropy at temperature 1 is included if `tokens` has it.
    """
    values = {
        "entropy": (tokens.entropies, tokens.mask),
        "entropy/positive_advantage": (tokens.entropies, tokens.positive),
        "entropy/negative_advantage": (tokens.entropies, tokens.negative),
    }
    if tokens.entropies_at_one is not None:
        values["entropy/temperature_1"] = tokens.entropies_at_one, tokens.mask
    return values


def entropy_by_correctness(tokens: Tokens) -> Values:
    """
    The entropy in nats over the tokens of correct and of incorrect completions; empty if `tokens` has no rewards.

    A completion is correct if its reward is above 0.5. Completions without a reward are neither.
    """
    if tokens.rewards is None:
        return {}
    rewards = tokens.rewards.unsqueeze(1).masked_fill(tokens.outside, torch.nan)  # neither is true for NaN
    return {
        "entropy/correct": (tokens.entropies, is_correct(rewards)),
        "entropy/incorrect": (tokens.entropies, is_incorrect(rewards)),
    }


def entropy_by_position(tokens: Tokens) -> Values:
    r"""
    The entropy in nats by decile of the position in the completion.

    Of the \\( L \\) trained tokens of a completion, the one at place \\( i = 1, \dots, L \\) belongs to decile
    \\( \lfloor (10 i - 5) / L \rfloor + 1 \\), so a short completion leaves some deciles empty.
    """
    places = tokens.mask.cumsum(-1, dtype=torch.float32)
    deciles = (10 * places * tokens.mask - 5) // places[:, -1:]  # below 0 outside the mask
    groups = (deciles == torch.arange(10, device=places.device).view(-1, 1, 1)).unbind()
    return {f"entropy/decile_{number}": (tokens.entropies, chosen) for number, chosen in enumerate(groups, start=1)}


def entropy_of_prompt(tokens: Tokens) -> Values:
    """The entropy in nats over all prompt tokens except the first, `(B, P - 1)`; empty if `tokens` has none."""
    entropies = tokens.prompt_entropies
    return {} if entropies is None else {"entropy/prompt": (entropies, ~entropies.isnan())}
