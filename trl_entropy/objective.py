"""Apply the rules of a run to TRL's loss."""

from collections.abc import Collection

from torch import Tensor

from .control.knobs import Knob, acting
from .control.signals import rule_signal
from .measures import StepMeasures
from .rules import Rule, Tokens
from .rules.compose import active, combined, evaluate, faults, needs, term_sums


ON_ADVANTAGES = ("token_weights", "advantage_bonuses")


class Objective:
    r"""
    The rules of a run, and their effect on TRL's loss.

    $$
    A' = \Big(\prod_i w_i\Big) \hat A + \sum_j b_j, \qquad
    \mathcal{L}' = \mathcal{L}_{\text{TRL}}(A') + \sum_k \mathrm{mean}_k(t_k)
    $$

    Args:
        sections (`dict[str, dict[str, Rule]]`):
            The rules \\( w_i \\), \\( b_j \\), \\( t_k \\): `token_weights`, `advantage_bonuses`, `loss_terms`.
            Turning a knob replaces its rule by a new one.
        turned (`Collection[Knob]`):
            The knobs that controllers turn: their rules may become active within a rollout batch.
        signals (`Collection[str]`):
            The signals that controllers read: a rule that gives one is evaluated even if it changes nothing.
    """

    def __init__(self, sections: dict[str, dict[str, Rule]], turned: Collection[Knob], signals: Collection[str]):
        self.sections, self.turned, self.signals = sections, turned, signals

    def needs(self) -> frozenset[str]:
        """The facts that the active rules read besides those that are always there."""
        turned = (acting(section, rules, self.turned) for section, rules in self.sections.items())
        return frozenset(needs(*map(self.active, self.sections), *turned))

    def active(self, section: str) -> dict[str, Rule]:
        """The rules of a section that change the loss, or that give a controller its signal."""
        rules = self.sections[section]
        watched = {name for name in rules if rule_signal(section, name) in self.signals}
        return active(rules) | {name: rules[name] for name in watched}

    def weights_and_bonuses(self) -> list[str]:
        """The active rules on advantages: `token_weights.sign`, for error messages."""
        return [f"{section}.{name}" for section in ON_ADVANTAGES for name in self.active(section)]

    def effective_advantages(self, raw: Tensor, tokens: Tokens, measures: StepMeasures | None) -> Tensor:
        """`A'`, `(B, T)`; `raw` itself if no weight and no bonus is active. `measures` learns what they did."""
        rules = {section: self.active(section) for section in ON_ADVANTAGES}
        if not any(rules.values()):
            return raw
        values = {section: evaluate(section, of_section, tokens) for section, of_section in rules.items()}
        if measures is not None:
            measures.add({"faults": (faults(tokens, *values.values()), tokens.mask.sum())})
            for section in rules:
                measures.add_rules(section, rules[section], values[section], tokens)
        return combined(tokens, *values.values())

    def extra_loss(self, tokens: Tokens, measures: StepMeasures | None) -> dict[bool, Tensor]:
        """The sum of the loss terms, `(B, T)`, by whether they follow `loss_type`; empty if no term is active."""
        rules = self.active("loss_terms")
        terms = evaluate("loss_terms", rules, tokens)
        if measures is not None:
            measures.add_rules("loss_terms", rules, terms, tokens)
        return term_sums(tokens, rules, terms)
