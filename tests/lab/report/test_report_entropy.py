import math

import pytest
from made import line, made

from trl_entropy.lab.report.findings.entropy import collapse, explosion, prediction, sources


def test_collapse_names_step_and_values():
    # 20 steps at 1, then 20 at 0.2: the mean of 10 is 1 - 0.08 n after n of them, below 0.3 from n = 9 on
    (found,) = collapse(made(series={"entropy": [1.0] * 20 + [0.2] * 20}))
    assert found.text == "Entropy fell below 30% of its start at step 29"
    assert found.evidence == "1.00 → 0.28 at step 29 → 0.20 nats at the end"
    assert found.severity == "bad"


FALL = {"entropy": [1.0] * 20 + [0.2] * 20}
KNOWN = {f"knobs/{name}": [value] * 40 for name, value in {
    "entropy_coef": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "positive_advantage_coef": 1.0,
    "negative_advantage_coef": 1.0, "learning_rate_scale": 1.0,
}.items()}  # fmt: skip
ON_POLICY = {"clip_ratio/low_mean": [0.0] * 40, "clip_ratio/high_mean": [0.0] * 40}
OFF_POLICY = {"clip_ratio/low_mean": [0.0] * 40, "clip_ratio/high_mean": [0.0, 0.01] * 20}
PI = {"law": "pi", "knob": "entropy_coef", "target": 0.5}
WIDER = "give the controller of entropy_coef a wider range or larger gains, or turn another knob"
HOLD = "or hold the entropy with a controller."


@pytest.mark.parametrize(
    ("series", "settings", "advice"),
    [
        (ON_POLICY, {}, f"Raise entropy_coef, lower learning_rate, {HOLD}"),
        (OFF_POLICY, {}, f"Raise entropy_coef or epsilon_high, lower learning_rate, {HOLD}"),
        ({"cispo_clip_ratio": [0.1] * 40}, {}, f"Raise entropy_coef, lower learning_rate, {HOLD}"),
        # of RLOOTrainer, which has no entropy bonus
        (OFF_POLICY, {"epsilon": 0.2, "epsilon_high": None}, f"Raise epsilon_high, lower learning_rate, {HOLD}"),
        (ON_POLICY | KNOWN, {}, f"Raise entropy_coef, lower positive_advantage_coef or learning_rate, {HOLD}"),
        (
            ON_POLICY | KNOWN | {"controllers/a/target": [0.5] * 40},
            {"controllers": {"a": PI}},
            f"Lower positive_advantage_coef or learning_rate, or {WIDER}.",
        ),
        (
            ON_POLICY,
            {"use_adaptive_entropy": True, "entropy_coef": 0.0},
            f"Lower learning_rate, or {WIDER}.",
        ),
    ],
)
def test_advice_against_a_collapse_follows_the_run(series, settings, advice):
    (found,) = collapse(made(series=FALL | series, settings=settings))
    assert found.advice == advice


def test_collapse_before_a_nan_is_not_taken_back():
    (found,) = collapse(made(series={"entropy": [1.0] * 20 + [0.2] * 20 + [math.nan] * 5}))
    assert found.text == "Entropy fell below 30% of its start at step 29"
    assert (found.evidence, found.severity) == ("1.00 → 0.28 at step 29 → nan nats at the end", "bad")


def test_collapse_that_came_back_is_a_note():
    (found,) = collapse(made(series={"entropy": [1.0] * 20 + [0.0] * 10 + [1.0] * 20}))
    assert found.text == "Entropy fell below 30% of its start at step 28 and came back"
    assert found.severity == "note"


def test_no_collapse():
    assert collapse(made(series={"entropy": [1.0] * 20 + [0.31] * 20})) == []
    assert collapse(made(series={"entropy": [1.0] * 15 + [0.1] * 14})) == []  # too few
    assert collapse(made(series={"entropy": [math.nan] * 40})) == []
    assert collapse(made(series={})) == []
    # A controller was told to
    asked = {"entropy": [1.0] * 20 + [0.2] * 20, "controllers/a/target": [0.2] * 40}
    assert collapse(made(series=asked)) == []
    assert collapse(made(series=asked | {"controllers/a/target": [0.5] * 40}))


def test_explosion():
    (found,) = explosion(made(series={"entropy": [1.0] * 20 + [2.0] * 20}))
    assert found.text == "Entropy rose above 150% of its start at step 26"  # the mean of 10 is 1.6
    assert (found.severity, found.advice) == ("bad", f"Lower learning_rate, {HOLD}")
    (found,) = explosion(
        made(series={"entropy": [1.0] * 20 + [2.0] * 20} | KNOWN | {"knobs/entropy_coef": [0.1] * 40})
    )
    assert found.advice == f"Lower entropy_coef, negative_advantage_coef or learning_rate, {HOLD}"
    assert explosion(made(series={"entropy": [1.0] * 40 + [math.inf] * 5})) == []
    assert explosion(made(series={"entropy": [1.0] * 20 + [1.5] * 20})) == []


def change(positive: float, negative: float, end: float = 0.5) -> dict[str, list[float]]:
    """Predictions with these means, 0.2 up and down, and an entropy from 1 on."""
    # the standard error of the mean of both is sqrt(2 * 0.2^2 * 40 / 39 / 40) = 0.045
    parts = {"positive": positive, "negative": negative}
    wiggly = {name: [mean + 0.2 * (-1) ** k for k in range(40)] for name, mean in parts.items()}
    return {"entropy": line(1.0, end)} | {f"entropy_change/predicted_{name}": part for name, part in wiggly.items()}


def test_sources_of_the_fall():
    (found,) = sources(made(series=change(-0.41, -0.09)))
    assert found.text == "82% of the predicted fall came from tokens with positive advantage"
    assert found.evidence == "means of the predictions: -0.41 (positive) and -0.09 (negative) nats per unit step"
    assert found.advice == ""  # a trainer without that weight
    (found,) = sources(made(series=change(-0.41, -0.09) | KNOWN))
    assert found.advice == "To keep more entropy, lower positive_advantage_coef, or let a controller turn it."
    (found,) = sources(made(series=change(-0.41, -0.09) | KNOWN | {"knobs/positive_advantage_coef": [0.0] * 40}))
    assert found.advice == ""
    (found,) = sources(made(series=change(0.1, -0.5)))
    assert (
        found.text
        == "The predicted fall came from tokens with negative advantage; the others were predicted to raise entropy"
    )
    assert found.advice.startswith("Do not lower negative_advantage_coef")


@pytest.mark.parametrize(
    ("positive", "negative", "end"),
    [(-0.3, -0.2, 0.5), (-0.04, -0.01, 0.5), (-0.4, -0.1, 1.2), (0.4, 0.1, 0.5)],
    ids=["both signs", "within the noise", "entropy rose", "predicted to rise"],
)
def test_no_source_of_a_fall(positive, negative, end):
    assert sources(made(series=change(positive, negative, end))) == []


def test_no_source_without_predictions():
    assert sources(made(series={"entropy": line(1.0, 0.5)})) == []


def test_prediction_goes_with_what_was_observed():
    wave = [math.sin(k) for k in range(40)]
    predicted = {"entropy_change/predicted": wave}
    (found,) = prediction(made(series=predicted | {"entropy_change/observed": [2 * value + 1 for value in wave]}))
    assert (found.severity, found.evidence) == ("good", "correlation 1.00 over 40 logged steps")
    (found,) = prediction(made(series=predicted | {"entropy_change/observed": [-value for value in wave]}))
    assert (found.severity, found.evidence) == ("note", "correlation -1.00 over 40 logged steps")
    # a wave and half of it beside an unrelated one: in between
    mixed = [value / 2 + math.cos(k) for k, value in enumerate(wave)]
    assert prediction(made(series=predicted | {"entropy_change/observed": mixed})) == []
    assert prediction(made(series=predicted | {"entropy_change/observed": [0.0] * 40})) == []
    assert (
        prediction(made(series=dict.fromkeys(("entropy_change/predicted", "entropy_change/observed"), wave[:29])))
        == []
    )
