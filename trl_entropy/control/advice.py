"""Advice on what to do when entropy moves the wrong way in a run."""

from collections.abc import Collection, Mapping, Sequence
from math import inf, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from .names import CLIP_RATIOS, LEARNING_RATE_SCALE


class Use(NamedTuple):
    """Whether a larger value of a knob raises entropy, and the range in which turning it is worthwhile."""

    raises_entropy: bool
    low: float
    high: float


# As in `knobs`, which loads torch. A bonus below 0 and a weight above 1 are legal, but we do not advise them
KNOBS = {
    "entropy_coef": Use(raises_entropy=True, low=0.0, high=inf),
    "epsilon_high": Use(raises_entropy=True, low=0.0, high=inf),
    "epsilon_low": Use(raises_entropy=False, low=0.0, high=1.0),
    "positive_advantage_coef": Use(raises_entropy=False, low=0.0, high=1.0),
    "negative_advantage_coef": Use(raises_entropy=True, low=0.0, high=1.0),
}
SIGN_COEFFICIENTS = ("positive_advantage_coef", "negative_advantage_coef")
# The bonuses that replace TRL's advantage, and therefore are refused beside a weight
REPLACING_BONUSES = ("max_rl", "pass_k", "quantile_advantage", "w_reinforce")
# The predicted changes of entropy by sign over consecutive steps, and when they are conclusive; ours
PREDICTED = ("entropy_change/predicted_positive", "entropy_change/predicted_negative")
LEAST_STEPS, ERRORS, LEAST_SHARE = 30, 3.0, 0.3
NO_AUTHORITY = "has little authority in this run: tokens with negative advantage pull the entropy down too"
HOLD = "hold the entropy with entropy_coef (--entropy_control hold)"
FLAGS = {"epsilon_low": "epsilon (set epsilon_high too, which follows it otherwise)"}


class RunState(NamedTuple):
    """
    The facts that advice depends on.

    Args:
        values (`Mapping[str, float]`):
            The knobs of the run, with their current values.
        turned (`Collection[str]`):
            Knobs that a controller or schedule turns.
        holding (`Collection[str]`):
            Those of `turned` whose controller holds an entropy at a target.
        clipped (`Collection[str]`):
            The bounds of the clip range, by knob, at which tokens have been clipped.
        replaced (`bool`):
            Whether a bonus replaces TRL's advantage, so that weights are refused.
    """

    values: Mapping[str, float]
    turned: Collection[str] = ()
    holding: Collection[str] = ()
    clipped: Collection[str] = ()
    replaced: bool = False


def acts(knob: str, facts: RunState) -> bool:
    """Whether turning a knob has an effect: a bound of the clip range has none if no token is clipped at it."""
    return knob not in CLIP_RATIOS or knob in facts.clipped


def without_authority(positive: Sequence[float], negative: Sequence[float]) -> bool:
    """
    Whether weights on one sign cannot hold the entropy, because both signs pull it down.

    That is the case if tokens with negative advantage lower it by more than [`ERRORS`] standard errors and cause at
    least [`LEAST_SHARE`] of the fall, so that it falls even without the others, and if tokens with positive advantage
    do not raise it.

    Args:
        positive, negative (`Sequence[float]`):
            The predicted changes of entropy, one per step, for the same steps; with fewer than [`LEAST_STEPS`] the
            answer is no.
    """
    if len(negative) < LEAST_STEPS:
        return False
    mean, others = fmean(negative), fmean(positive)
    clear = mean < -ERRORS * stdev(negative) / sqrt(len(negative))
    return clear and others <= 0 and mean <= LEAST_SHARE * (mean + others)


def turns(up: bool, facts: RunState) -> dict[str, bool]:
    """The knobs that can still move the entropy up (or down): name -> whether to raise the knob."""
    found = {}
    for name, knob in KNOBS.items():
        if name not in facts.values or name in facts.turned or not acts(name, facts):
            continue
        if facts.replaced and name in SIGN_COEFFICIENTS:
            continue
        raised = knob.raises_entropy == up
        if facts.values[name] < knob.high if raised else facts.values[name] > knob.low:
            found[name] = raised
    return found


def to_move(up: bool, facts: RunState) -> str:
    """Advice on how to move the entropy up (or down)."""
    found = turns(up, facts)
    raised, lowered = ([FLAGS.get(name, name) for name in found if found[name] is way] for way in (True, False))
    if LEARNING_RATE_SCALE not in facts.turned:
        lowered.append("learning_rate")
    parts = [f"{verb} {either(names)}" for verb, names in (("raise", raised), ("lower", lowered)) if names]
    return ", ".join([*parts, f"or {_control(facts)}" if parts else _control(facts)])


def _control(facts: RunState) -> str:
    acting = [knob for knob in facts.holding if acts(knob, facts)]
    if acting:
        held = either(sorted(acting))
        return f"give the controller of {held} a wider range or larger gains, or turn another knob"
    if facts.holding:
        idle = either(sorted(facts.holding))
        return f"hold the entropy with a knob other than {idle}, which does nothing while no token is clipped"
    return "hold the entropy with a controller"


def either(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
