import math

import pytest
from made import line, made

from trl_entropy.report.findings.entropy import collapse, explosion, prediction, sources


def test_collapse_names_step_and_values():
    # 20 steps at 1, then 20 at 0.2: the mean of 10 is 1 - 0.08 n after n of them, below 0.3 from n = 9 on
    (found,) = collapse(made(series={"entropy": [1.0] * 20 + [0.2] * 20}))
    assert found.text == "Entropy fell below 30% of its start at step 29"
    assert found.evidence == "1.00 → 0.28 at step 29 → 0.20 nats at the end"
    assert found.severity == "bad"
    assert "entropy_target_ratio" in found.advice


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
    assert found.severity == "bad"
    assert explosion(made(series={"entropy": [1.0] * 20 + [1.5] * 20})) == []


def change(positive: float, negative: float, end: float = 0.5) -> dict[str, list[float]]:
    """Predictions with these means, 0.2 up and down, and an entropy from 1 on."""
    # the standard error of the mean of both is sqrt(2 * 0.2^2 * 40 / 39 / 40) = 0.045
    parts = {"positive": positive, "negative": negative}
    wiggly = {name: [mean + 0.2 * (-1) ** k for k in range(40)] for name, mean in parts.items()}
    return {"entropy": line(1.0, end)} | {f"entropy_change/predicted_{name}": part for name, part in wiggly.items()}


def test_sources_of_the_fall():
    (found,) = sources(made(series=change(-0.41, -0.09)))
    assert found.text == "82% of the predicted fall came from tokens of positive advantage"
    assert found.evidence == "means of the predictions: -0.41 (positive) and -0.09 (negative) nats per unit step"
    assert found.advice.startswith("Consider positive_advantage_coef < 1")
    (found,) = sources(made(series=change(0.1, -0.5)))
    assert found.text == "The predicted fall came from tokens of negative advantage; the others were to raise entropy"
    assert "negative_advantage_coef" in found.advice


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
