"""Advice about the entropy: it follows the facts of the run, and never contradicts the table of knobs."""

import re
from itertools import chain, combinations
from pathlib import Path

import pytest

from trl_entropy.control import advice
from trl_entropy.control.advice import CLIP_RATIOS, KNOBS, RunState, to_move, turns
from trl_entropy.control.knobs import LEARNING_RATE_SCALE, TRL_KNOBS, rule_knobs
from trl_entropy.lab.report.facts import DEFAULTS, facts
from trl_entropy.lab.report.runs import Run
from trl_entropy.rules.bonuses import BONUSES
from trl_entropy.rules.weights import Sign


PAGE = Path(__file__).parent.parent / "docs" / "controllers.md"
ROW = r"\| `(\w+)`[^|]*\|[^|]*\|[^|]*\| (raises|lowers) entropy \|"  # knob, range, default, a larger value
SIGN = {"positive_advantage_coef": 1.0, "negative_advantage_coef": 1.0}
INSIDE = dict.fromkeys(KNOBS, 0.5)  # not at the end of a range
HOLD = "or hold the entropy with a controller"


def subsets(names):
    return chain.from_iterable(combinations(names, number) for number in range(len(names) + 1))


def told(text: str) -> dict[str, str]:
    """The knobs that a text says to raise or to lower."""
    text = re.sub(r"\(.*?\)", "", text)
    found = {}
    for part in re.split(r"(?=\braise |\blower )", text.split("hold the")[0].split("give the")[0]):
        verb, _, names = part.partition(" ")
        found |= {{"epsilon": "epsilon_low"}.get(name, name): verb for name in re.findall(r"\w+", names)}
    return {name: verb for name, verb in found.items() if name in KNOBS or name == "learning_rate"}


def in_the_manual() -> dict[str, bool]:
    """Whether a larger value raises entropy, by the table of knobs."""
    return {knob: effect == "raises" for knob, effect in re.findall(ROW, PAGE.read_text(encoding="utf-8"))}


def test_knobs_are_those_of_the_package():
    of_sign = rule_knobs({"token_weights": {"sign": Sign()}}).values()
    known = {knob.name: knob for knob in (*TRL_KNOBS, *of_sign)}
    assert KNOBS.keys() == known.keys()
    for name, use in KNOBS.items():
        assert use.raises_entropy is known[name].raises_entropy is in_the_manual()[name]
        assert known[name].low <= use.low < use.high <= known[name].high
    assert {knob.name: knob.default for knob in TRL_KNOBS} == DEFAULTS
    assert advice.LEARNING_RATE_SCALE == LEARNING_RATE_SCALE
    assert set(advice.SIGN_COEFFICIENTS) == {knob.name for knob in of_sign}
    assert tuple(sorted(name for name, rule in BONUSES.items() if rule.replaces_advantage)) == advice.REPLACING_BONUSES


@pytest.mark.parametrize("up", [True, False])
def test_no_advice_contradicts_the_table(up):
    raises, seen = in_the_manual(), set()
    for clipped in subsets(CLIP_RATIOS):
        for turned in subsets(KNOBS):
            found = told(to_move(up, RunState(INSIDE, turned, (), clipped)))
            assert found.pop("learning_rate") == "lower"
            assert found.keys() & set(turned) == set()
            assert found.keys() & (CLIP_RATIOS.keys() - set(clipped)) == set()
            for name, verb in found.items():
                assert (verb == "raise") == (raises[name] == up), name
            seen |= found.keys()
    assert seen == KNOBS.keys()


@pytest.mark.parametrize(
    ("up", "facts", "text"),
    [
        # nothing clipped: on-policy, or a loss without such a bound
        (True, RunState(DEFAULTS), f"raise entropy_coef, lower learning_rate, {HOLD}"),
        (
            True,
            RunState(DEFAULTS | SIGN),
            f"raise entropy_coef, lower positive_advantage_coef or learning_rate, {HOLD}",
        ),
        (False, RunState(DEFAULTS), f"lower learning_rate, {HOLD}"),
        (
            True,
            RunState(DEFAULTS, clipped={"epsilon_high"}),
            f"raise entropy_coef or epsilon_high, lower learning_rate, {HOLD}",
        ),
        (
            True,
            RunState(DEFAULTS, clipped={"epsilon_low"}),
            "raise entropy_coef, lower epsilon (set epsilon_high too, which follows it otherwise) or learning_rate, "
            + HOLD,
        ),
        # without an entropy bonus in the trainer
        (True, RunState({"epsilon_low": 0.2, "epsilon_high": 0.2}), f"lower learning_rate, {HOLD}"),
        # at the end of what is useful
        (True, RunState({"positive_advantage_coef": 0.0}), f"lower learning_rate, {HOLD}"),
        (False, RunState(SIGN), f"lower negative_advantage_coef or learning_rate, {HOLD}"),
        (False, RunState({"negative_advantage_coef": 0.0}), f"lower learning_rate, {HOLD}"),
        # a weight that lowers entropy is undone
        (
            True,
            RunState({"positive_advantage_coef": 0.0, "negative_advantage_coef": 0.5}),
            f"raise negative_advantage_coef, lower learning_rate, {HOLD}",
        ),
        # turned, with and without a target
        (True, RunState(DEFAULTS, turned={"entropy_coef"}), f"lower learning_rate, {HOLD}"),
        (
            True,
            RunState(DEFAULTS, turned={"entropy_coef"}, holding={"entropy_coef"}),
            "lower learning_rate, or give the controller of entropy_coef a wider range or larger gains, "
            "or turn another knob",
        ),
        (
            True,
            RunState(DEFAULTS, turned={"epsilon_high"}, holding={"epsilon_high"}),
            "raise entropy_coef, lower learning_rate, or hold the entropy with a knob other than epsilon_high, which "
            "does nothing while no token is clipped",
        ),
        (True, RunState({}, turned={LEARNING_RATE_SCALE}), "hold the entropy with a controller"),
    ],
)
def test_advice_follows_the_facts(up, facts, text):
    assert to_move(up, facts) == text


def test_a_contradiction_would_be_seen():
    assert told("raise epsilon (set epsilon_high too) or entropy_coef, lower learning_rate, or hold the entropy") == {
        "epsilon_low": "raise",
        "entropy_coef": "raise",
        "learning_rate": "lower",
    }
    assert turns(True, RunState(INSIDE, clipped=("epsilon_low",)))["epsilon_low"] is False


@pytest.mark.parametrize("up", [True, False])
def test_no_weight_is_advised_beside_a_bonus_that_replaces_the_advantage(up):
    values = INSIDE | {"learning_rate_scale": 1.0}
    plain, replaced = (turns(up, RunState(values, clipped=CLIP_RATIOS, replaced=way)) for way in (False, True))
    assert plain.keys() - replaced.keys() == SIGN.keys()
    assert replaced.items() <= plain.items()


def test_report_knows_a_bonus_that_replaces_the_advantage():
    assert facts(Run("a", Path("a"), {}, {"advantage_bonuses": {"w_reinforce": {}}})).replaced
    assert not facts(Run("a", Path("a"), {}, {"advantage_bonuses": {"position": {}}})).replaced


def predictions(positive: float, negative: float, number: int = 40) -> tuple[list[float], list[float]]:
    """Predicted changes with these means, 0.2 up and down: the standard error of 40 is sqrt(0.2^2 / 39) = 0.032."""
    return tuple([mean + 0.2 * (-1) ** step for step in range(number)] for mean in (positive, negative))


@pytest.mark.parametrize(
    ("positive", "negative", "number", "without"),
    [
        (-0.2, -0.2, 40, True),
        (0.0, -0.1, 40, True),  # without the tokens of positive advantage it falls as well
        (-0.2, -0.2, 29, False),  # too early
        (-0.2, -0.09, 40, False),  # within 3 standard errors
        (-0.2, -0.1, 40, True),
        (-0.3, -0.12, 40, False),  # less than 0.3 of the fall
        (0.1, -0.4, 40, False),  # more of the positive ones raises it
        (-0.2, 0.2, 40, False),  # less of them raises it
        (0.2, 0.2, 40, False),
    ],
)
def test_a_weight_on_one_sign_has_no_authority_where_both_pull_down(positive, negative, number, without):
    assert advice.without_authority(*predictions(positive, negative, number)) is without


def test_nothing_is_said_about_authority_before_the_first_steps():
    assert advice.without_authority([], []) is False
