import pytest
from made import made
from test_report_entropy import KNOWN, change

from trl_entropy.lab.report.findings.authority import authority


BOTH = change(-0.3, -0.2) | KNOWN
SET = {"knobs/positive_advantage_coef": [0.5] * 40}
TURNED = {"controllers": {"a": {"law": "pi", "knob": "positive_advantage_coef", "target": 0.9}}}
HELD = {"controllers": {"a": {"law": "pi", "knob": "entropy_coef", "target": 0.9}}}
TARGET = {"controllers/a/target": [0.9] * 40}
SETTLED = {"entropy": [0.9] * 40}


@pytest.mark.parametrize(
    ("series", "settings", "severity"),
    [(SET, {}, "note"), (TARGET, TURNED, "bad"), ({"knobs/positive_advantage_coef": [1.0, 0.9] * 20}, {}, "note")],
    ids=["set", "with a target", "turned"],
)
def test_coefficient_that_is_used_has_no_authority_where_both_signs_pull_down(series, settings, severity):
    (found,) = authority(made(series=BOTH | series, settings=settings))
    assert found.text == (
        "positive_advantage_coef has little authority in this run: tokens with negative advantage pull the entropy "
        "down too"
    )
    assert found.evidence == "means of the predictions: -0.3 (positive) and -0.2 (negative) nats per unit step"
    assert (found.severity, found.advice) == (
        severity,
        "Hold the entropy with entropy_coef (--entropy_control hold).",
    )


def test_coefficient_of_the_negatives_is_named():
    (found,) = authority(made(series=BOTH | {"knobs/negative_advantage_coef": [1.5] * 40}))
    assert found.text.startswith("negative_advantage_coef has")


def test_evidence_has_what_was_measured():
    measured = {"authority/noise_share": [0.8, 1.0] * 20, "authority/samples_per_context": [3.0, 4.0] * 10}
    (found,) = authority(made(series=BOTH | SET | measured))
    assert found.evidence.endswith("nats per unit step; 90% of the gradient is noise; 3.5 samples per context")


@pytest.mark.parametrize(
    ("series", "settings"),
    [
        ({}, {}),
        (SET | change(-0.3, 0.2), {}),
        (TARGET | SETTLED, TURNED),
        (SET | TARGET, HELD),
        (SET | {"entropy_change/predicted_negative": [-0.2] * 29}, {}),
    ],
    ids=["no coefficient is used", "the signs part", "it holds", "the bonus holds", "too few steps"],
)
def test_nothing_is_said_about_authority(series, settings):
    assert authority(made(series=BOTH | series, settings=settings)) == []


def test_nothing_is_said_without_predictions():
    assert authority(made(series=KNOWN | SET)) == []
