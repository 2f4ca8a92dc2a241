"""What the rules did in a step, and a warning for a rule or a knob that does nothing."""

import logging
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ..rules.rule import Rule
from ..rules.tokens import Tokens


logger = logging.getLogger(__name__)

PATIENCE = 20  # optimizer steps
# The value at which a rule does nothing
NEUTRAL = {"token_weights": 1.0, "advantage_bonuses": 0.0, "loss_terms": 0.0}
WHY_RULES = (
    "strictly on-policy (one update per rollout batch) ratios are 1, and a threshold may be out of reach. See its "
    "page in docs/methods"
)
WHY_KNOBS = (
    "a bound acts on ratios that leave the clip range on its side, a coefficient on tokens of its sign. See Knobs in "
    "docs/controllers.md"
)


def rule_means(section: str, values: Mapping[str, Tensor], tokens: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """`(sum, count)` over the trained tokens of each rule's value, and of where it differs from its neutral value."""
    count = tokens.mask.sum()
    means = {}
    for name, value in values.items():
        means[f"{section}/{name}/mean"] = tokens.trained(value).sum(), count
        means[f"{section}/{name}/share"] = (tokens.mask & (value != NEUTRAL[section])).sum(), count
    return means


def watched_entropy(
    section: str, rules: Mapping[str, Rule], values: Mapping[str, Tensor], tokens: Tokens, wanted: Collection[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """`(sum, count)` of the entropy (nats) that each of the `wanted` rules gives as a signal."""
    means = {}
    for name, value in values.items():
        if (metric := f"entropy/{section}.{name}") in wanted:
            entropies, chosen = rules[name].watched(tokens, value.detach())
            chosen = tokens.mask & chosen
            means[metric] = torch.where(chosen, entropies.detach(), 0).sum(), chosen.sum()
    return means


def touched(means: Mapping[str, float]) -> dict[str, bool]:
    """Which rules touched a token in an optimizer step, from its means."""
    suffix = "/share"
    found = {name.removesuffix(suffix): mean > 0 for name, mean in means.items() if name.endswith(suffix)}
    return {name.replace("/", "."): any_token for name, any_token in found.items()}


class Idle:
    """Warns, once for each rule or knob, if it touched no token in all of its first steps."""

    def __init__(self, why: str):
        self._why = why
        self._steps: dict[str, int] = {}

    def watches(self, name: str) -> bool:
        """Whether it is not known yet that a rule or knob touches tokens, and its first steps are not over."""
        return self._steps.get(name) != PATIENCE

    def look(self, touched: Mapping[str, bool]) -> None:
        """See which of them touched a token in an optimizer step."""
        for name, any_token in touched.items():
            if not self.watches(name):
                continue
            self._steps[name] = PATIENCE if any_token else self._steps.get(name, 0) + 1
            if not any_token and self._steps[name] == PATIENCE:
                logger.warning("%s touched no token in its first %d steps: %s", name, PATIENCE, self._why)
