"""Knobs: the named scalars that a law may turn."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from math import inf

from ..checks import check_number, unknown
from ..rules.compose import active
from ..rules.rule import Rule
from .names import CLIP_RATIOS, LEARNING_RATE_SCALE


@dataclass(frozen=True)
class Knob:
    """
    A named scalar that a law may turn.

    Args:
        name (`str`):
            The config flag, or the path in the config's mapping: `token_weights.confident_sign.alpha`.
        low, high (`float`):
            Range of legal values.
        raises_entropy (`bool` or `None`):
            Whether a larger value raises the policy's entropy; `None` if unknown.
        default (`float`):
            Value of a run that sets nothing.
        section, rule, parameter (`str`, *optional*):
            Its place in the config, if it is a parameter of a rule.
    """

    name: str
    low: float
    high: float
    raises_entropy: bool | None
    default: float
    section: str = ""
    rule: str = ""
    parameter: str = ""


# TRL's own knobs: the names of the trainer's attributes
TRL_KNOBS = (
    Knob("epsilon_low", low=0.0, high=1.0, raises_entropy=False, default=0.2),
    Knob("epsilon_high", low=0.0, high=inf, raises_entropy=True, default=0.2),
    Knob("entropy_coef", low=-inf, high=inf, raises_entropy=True, default=0.0),
)
# What a knob acts on in a step: a signal that is 0 or missing if there is no token to act on
ACTS_ON = {
    **CLIP_RATIOS,
    "positive_advantage_coef": "entropy/positive_advantage",
    "negative_advantage_coef": "entropy/negative_advantage",
}
TEMPERATURE = "temperature"
# TRL fixes these two when the trainer is made
TEMPERATURE_KNOB = Knob(TEMPERATURE, low=0.01, high=inf, raises_entropy=True, default=1.0)
# It changes how fast entropy moves, in either direction
SCALE_KNOB = Knob(LEARNING_RATE_SCALE, low=0.0, high=inf, raises_entropy=None, default=1.0)
TRAINER_KNOBS = (*TRL_KNOBS, TEMPERATURE_KNOB, SCALE_KNOB)


def rule_knobs(sections: Mapping[str, Mapping[str, Rule]]) -> dict[str, Knob]:
    """All parameters of the rules that a law may turn, section by section; by name."""
    found = {}
    for section, rules in sections.items():
        for rule_name, rule in rules.items():
            for parameter in fields(rule):
                if "low" not in (facts := parameter.metadata):
                    continue
                name = parameter.name if facts["flag"] else f"{section}.{rule_name}.{parameter.name}"
                of_knob = facts["low"], facts["high"], facts["raises_entropy"], getattr(type(rule), parameter.name)
                found[name] = Knob(name, *of_knob, section, rule_name, parameter.name)
    return found


def acting(section: str, rules: Mapping[str, Rule], turned: Iterable[Knob]) -> dict[str, Rule]:
    """The rules of a section that change the loss, or may change it once a controller turns one of these knobs."""
    return active(rules) | {knob.rule: rules[knob.rule] for knob in turned if knob.section == section}


class Knobs(Mapping[str, float]):
    """
    The knobs of one trainer. Reading gives the current value. A new value acts from the next loss, a temperature from
    the next rollout.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Knob, Callable[[], float], Callable[[float], None]]] = {}

    def add(self, knob: Knob, read: Callable[[], float], write: Callable[[float], None]) -> None:
        """Add a scalar as a knob."""
        self._entries[knob.name] = knob, read, write

    def add_rules(self, knobs: Iterable[Knob], sections: Mapping[str, dict[str, Rule]]) -> None:
        """Add parameters of rules as knobs; turning one replaces the rule in its section."""
        for knob in knobs:
            rules = sections[knob.section]
            self.add(knob, partial(_number, rules, knob), partial(_turn, rules, knob))

    def __getitem__(self, name: str) -> float:
        if name not in self._entries:
            raise KeyError(str(unknown("knob", name, self)))
        return self._entries[name][1]()

    def __setitem__(self, name: str, value: float) -> None:
        if name not in self._entries:
            raise KeyError(str(unknown("knob", name, self)))
        knob, _, write = self._entries[name]
        check_number(name, value, knob.low, knob.high)
        write(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _number(rules: dict[str, Rule], knob: Knob) -> float:
    return getattr(rules[knob.rule], knob.parameter)


def _turn(rules: dict[str, Rule], knob: Knob, value: float) -> None:
    rules[knob.rule] = replace(rules[knob.rule], **{knob.parameter: value})
