"""Measure the effect of rules in a step, and warn about a rule or knob that does nothing."""

import logging
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ..control.signals import rule_signal
from ..rules.rule import Rule
from ..rules.tokens import Tokens


logger = logging.getLogger(__name__)

PATIENCE = 20  # optimizer steps
# The value with which a rule does nothing
NEUTRAL = {"token_weights": 1.0, "advantage_bonuses": 0.0, "loss_terms": 0.0}
WHY_RULES = (
    "with one update per rollout batch all ratios are 1, and a threshold may be out of reach. See its page in "
    "docs/methods"
)
WHY_KNOBS = (
    "a bound only acts on ratios that leave the clip range on its side, a coefficient only on tokens with its sign. "
    "See Knobs in docs/controllers.md"
)


def rule_means(section: str, values: Mapping[str, Tensor], tokens: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """`(sum, count)` over the trained tokens of each rule's value, and of whether it differs from neutral."""
    count = tokens.mask.sum()
    means = {}
    for name, value in values.items():
        means[f"{section}/{name}/mean"] = tokens.trained(value).sum(), count
        means[f"{section}/{name}/share"] = (tokens.mask & (value != NEUTRAL[section])).sum(), count
    return means


def watched_entropy(
    section: str, rules: Mapping[str, Rule], values: Mapping[str, Tensor], tokens: Tokens, wanted: Collection[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """`(sum, count)` of the entropy (nats) that each of the `wanted` rules has as its signal."""
    means = {}
    for name, value in values.items():
        if (metric := rule_signal(section, name)) in wanted:
            entropies, chosen = rules[name].watched(tokens, value.detach())
            chosen = tokens.mask & chosen
            means[metric] = torch.where(chosen, entropies.detach(), 0).sum(), chosen.sum()
    return means


def touched(means: Mapping[str, float]) -> dict[str, bool]:
    """Which rules changed a token in an optimizer step, from its means."""
    suffix = "/share"
    found = {name.removesuffix(suffix): mean > 0 for name, mean in means.items() if name.endswith(suffix)}
    return {name.replace("/", "."): any_token for name, any_token in found.items()}


class Idle:
    """Warn, once per rule or knob, if it changed no token in all its first steps."""

    def __init__(self, why: str):
        self._why = why
        self._steps: dict[str, int] = {}

    def watches(self, name: str) -> bool:
        """Whether a rule or knob has changed no token so far and its first steps are not over."""
        return self._steps.get(name) != PATIENCE

    def look(self, touched: Mapping[str, bool]) -> None:
        """Note which of them changed a token in an optimizer step."""
        for name, any_token in touched.items():
            if not self.watches(name):
                continue
            self._steps[name] = PATIENCE if any_token else self._steps.get(name, 0) + 1
            if not any_token and self._steps[name] == PATIENCE:
                logger.warning("%s changed no token in its first %d steps: %s", name, PATIENCE, self._why)
