"""The named scalars that a law may turn."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import inf

from ..checks import check_number, unknown
from ..rules.compose import active
from ..rules.rule import Rule
from .advice import CLIP_RATIOS, LEARNING_RATE_SCALE


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
    """

    name: str
    low: float
    high: float
    raises_entropy: bool | None
    default: float


# TRL's own: the names of the trainer's attributes
TRL_KNOBS = (
    Knob("epsilon_low", low=0.0, high=1.0, raises_entropy=False, default=0.2),
    Knob("epsilon_high", low=0.0, high=inf, raises_entropy=True, default=0.2),
    Knob("entropy_coef", low=-inf, high=inf, raises_entropy=True, default=0.0),
)
# What a knob acts on in a step: a signal that is 0, or missing, if no token is there to act on
ACTS_ON = {
    **CLIP_RATIOS,
    "positive_advantage_coef": "entropy/positive_advantage",
    "negative_advantage_coef": "entropy/negative_advantage",
}
TEMPERATURE = "temperature"
# What TRL fixes when the trainer is made
TRAINER_KNOBS = (
    *TRL_KNOBS,
    Knob(TEMPERATURE, low=0.01, high=inf, raises_entropy=True, default=1.0),
    # How fast entropy moves, whichever way it goes
    Knob(LEARNING_RATE_SCALE, low=0.0, high=inf, raises_entropy=None, default=1.0),
)


def rule_knobs(section: str, rules: Mapping[str, Rule]) -> dict[str, tuple[Knob, str, str]]:
    """Every numeric parameter of the rules: knob name -> (knob, name of the rule, name of its field)."""
    table = {}
    for rule_name, rule in rules.items():
        for parameter in fields(rule):
            facts = dict(parameter.metadata)
            if "low" not in facts:
                continue
            name = parameter.name if facts.pop("flag") else f"{section}.{rule_name}.{parameter.name}"
            table[name] = Knob(name, default=parameter.default, **facts), rule_name, parameter.name
    return table


def acting(section: str, rules: Mapping[str, Rule], turned: Collection[str]) -> dict[str, Rule]:
    """The rules that change anything, or that controllers of the knobs in `turned` may make change something."""
    by_knob = {rule: rules[rule] for name, (_, rule, _) in rule_knobs(section, rules).items() if name in turned}
    return active(rules) | by_knob


class Knobs(Mapping[str, float]):
    """
    The knobs of one trainer. Reading gives the value in force; setting one takes effect at the next loss, and the
    temperature at the next rollout.
    """

    def __init__(self):
        self._entries: dict[str, tuple[Knob, Callable[[], float], Callable[[float], None]]] = {}

    def add(self, knob: Knob, read: Callable[[], float], write: Callable[[float], None]) -> None:
        """Make a scalar turnable."""
        self._entries[knob.name] = knob, read, write

    def add_rules(self, section: str, rules: dict[str, Rule]) -> None:
        """Make the parameters of rules turnable; a turned rule replaces the old one in `rules`."""

        def write(value: float, rule_name: str, field_name: str) -> None:
            rules[rule_name] = replace(rules[rule_name], **{field_name: value})

        for knob, rule_name, field_name in rule_knobs(section, rules).values():
            self.add(
                knob,
                lambda rule_name=rule_name, field_name=field_name: getattr(rules[rule_name], field_name),
                lambda value, rule_name=rule_name, field_name=field_name: write(value, rule_name, field_name),
            )

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
