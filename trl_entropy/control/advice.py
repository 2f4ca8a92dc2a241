"""What to do about an entropy that goes the wrong way, by the facts of a run."""

from collections.abc import Collection, Mapping, Sequence
from math import inf, sqrt
from statistics import fmean, stdev
from typing import NamedTuple


class Use(NamedTuple):
    """Whether a larger value of a knob raises entropy, and between which values it is worth turning."""

    raises_entropy: bool
    low: float
    high: float


# As in `knobs`, which loads torch; a bonus below 0 and a weight above 1 are legal, but nothing to advise (ours)
KNOBS = {
    "entropy_coef": Use(raises_entropy=True, low=0.0, high=inf),
    "epsilon_high": Use(raises_entropy=True, low=0.0, high=inf),
    "epsilon_low": Use(raises_entropy=False, low=0.0, high=1.0),
    "positive_advantage_coef": Use(raises_entropy=False, low=0.0, high=1.0),
    "negative_advantage_coef": Use(raises_entropy=True, low=0.0, high=1.0),
}
SIGN_COEFFICIENTS = ("positive_advantage_coef", "negative_advantage_coef")
# The bonuses that put another advantage in the place of TRL's, and so are refused with a weight
REPLACING_BONUSES = ("max_rl", "pass_k", "quantile_advantage", "w_reinforce")
LEARNING_RATE_SCALE = "learning_rate_scale"
# The bounds of the clip range, and what TRL logs the share of tokens beyond each as. A loss that has no such bound
# (cispo, sapo, vespo) logs none
CLIP_RATIOS = {"epsilon_low": "clip_ratio/low_mean", "epsilon_high": "clip_ratio/high_mean"}
# What the tokens of either sign predict, for steps in a row, and when that says something; ours
PREDICTED = ("entropy_change/predicted_positive", "entropy_change/predicted_negative")
LEAST_STEPS, ERRORS, LEAST_SHARE = 30, 3.0, 0.3
NO_AUTHORITY = "has little authority in this run: tokens of negative advantage pull the entropy down, too"
HOLD = "hold the entropy with entropy_coef (--entropy_control hold)"
FLAGS = {"epsilon_low": "epsilon (set epsilon_high too, which follows it otherwise)"}


class Facts(NamedTuple):
    """
    What advice depends on.

    Args:
        values (`Mapping[str, float]`):
            The knobs that the run has, with the values in force.
        turned (`Collection[str]`):
            Knobs that a controller or schedule turns.
        holding (`Collection[str]`):
            Those of them that hold an entropy at a target.
        clipped (`Collection[str]`):
            The bounds of the clip range, by knob, that tokens have been clipped at.
        replaced (`bool`):
            Whether a bonus puts another advantage in the place of TRL's, beside which weights are refused.
    """

    values: Mapping[str, float]
    turned: Collection[str] = ()
    holding: Collection[str] = ()
    clipped: Collection[str] = ()
    replaced: bool = False


def acts(knob: str, facts: Facts) -> bool:
    """Whether turning a knob does anything: a bound of the clip range does not where no token is clipped at it."""
    return knob not in CLIP_RATIOS or knob in facts.clipped


def without_authority(positive: Sequence[float], negative: Sequence[float]) -> bool:
    """
    Whether no weight on one sign can hold the entropy: both signs pull it down.

    Tokens of negative advantage lower it by more than [`ERRORS`] standard errors and have [`LEAST_SHARE`] of the fall
    or more, so that even without the others it falls. Those of positive advantage do not raise it.

    Args:
        positive, negative (`Sequence[float]`):
            The predicted changes of entropy, one for each of the same steps; with fewer than [`LEAST_STEPS`] the
            answer is no.
    """
    if len(negative) < LEAST_STEPS:
        return False
    mean, others = fmean(negative), fmean(positive)
    clear = mean < -ERRORS * stdev(negative) / sqrt(len(negative))
    return clear and others <= 0 and mean <= LEAST_SHARE * (mean + others)


def turns(up: bool, facts: Facts) -> dict[str, bool]:
    """The knobs that can still move the entropy up, or else down: name -> whether to raise or to lower it."""
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


def to_move(up: bool, facts: Facts) -> str:
    """What to do to move the entropy up, or else down."""
    found = turns(up, facts)
    raised, lowered = ([FLAGS.get(name, name) for name in found if found[name] is way] for way in (True, False))
    if LEARNING_RATE_SCALE not in facts.turned:
        lowered.append("learning_rate")
    parts = [f"{verb} {either(names)}" for verb, names in (("raise", raised), ("lower", lowered)) if names]
    return ", ".join([*parts, f"or {_control(facts)}" if parts else _control(facts)])


def _control(facts: Facts) -> str:
    acting = [knob for knob in facts.holding if acts(knob, facts)]
    if acting:
        held = either(sorted(acting))
        return f"give the controller of {held} a wider range or larger gains, or turn another knob"
    if facts.holding:
        idle = either(sorted(facts.holding))
        return f"hold the entropy with another knob than {idle}, which does nothing while no token is clipped"
    return "hold the entropy with a controller"


def either(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
