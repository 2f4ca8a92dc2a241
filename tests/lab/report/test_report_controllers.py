import math

from made import line, made

from trl_entropy.lab.report.findings.controllers import control, limits


def controlled(entropy: list[float], knob: list[float], target: float = 0.5, clipped: float = 0.01, **spec):
    series = {"entropy": entropy, "knobs/epsilon_high": knob, "controllers/mine/target": [target] * len(entropy)}
    series["clip_ratio/high_mean"] = [clipped] * len(entropy)
    spec = {"law": "pi", "knob": "epsilon_high", **spec}
    return made(series=series, settings={"controllers": {"mine": spec}})


def test_controller_that_settled():
    # the mean of 10 is 1 - 0.049 n after n steps at 0.51; within 0.05 of 0.5 from n = 10, step 30
    (found,) = control(controlled([1.0] * 20 + [0.51] * 40, line(0.2, 0.3, 60)))
    assert found.text == "mine: entropy settled within 10% of its target at step 30"
    assert found.evidence == "mean of the last half +2.0% from the target, which ended at 0.5"
    assert found.severity == "good"


def test_controller_that_did_not_settle():
    (found,) = control(controlled([1.0] * 60, line(0.2, 0.3, 60)))
    assert found.text == "mine: entropy did not settle within 10% of its target"
    assert found.evidence == "mean of the last half +100.0% from the target, which ended at 0.5"
    assert found.severity == "bad"


def test_controller_of_a_clip_range_that_never_acts():
    run = controlled([1.0] * 60, [0.2] * 30 + [2.95] * 30, clipped=0.0)
    (missed,), (limit,) = control(run), limits(run)
    assert missed.advice == limit.advice == "No token was clipped, so the knob did nothing: turn another knob."
    run = controlled([1.0] * 60, [0.2] * 30 + [2.95] * 30)
    assert "gains" in control(run)[0].advice


def test_controller_of_an_entropy_that_became_nan():
    (found,) = control(controlled([1.0] * 20 + [0.5] * 30 + [math.nan] * 10, line(0.2, 0.3, 60)))
    assert found.text == "mine: entropy did not settle within 10% of its target"
    assert (found.evidence, found.advice) == ("the mean of the last half is nan, the target ended at 0.5", "")


def test_controller_that_came_at_the_very_end_did_not_settle():
    (found,) = control(controlled([1.0] * 50 + [0.5] * 10, line(0.2, 0.3, 60)))
    assert "did not settle" in found.text


def test_controller_that_goes_round_its_target():
    (found,) = control(controlled(([0.9] * 15 + [0.1] * 15) * 2, line(0.2, 0.3, 60)))
    assert found.severity == "note"
    assert "gains" in found.advice


def test_nothing_is_said_of_a_controller_without_data():
    assert control(made(series={"entropy": [1.0] * 60})) == []
    assert control(controlled([1.0] * 29, line(0.2, 0.3, 29))) == []
    assert control(controlled([1.0] * 60, line(0.2, 0.3, 60), signal="entropy/decile_1")) == []  # not logged
    assert control(controlled([1.0] * 60, line(0.2, 0.3, 60), target=0.0)) == []


def test_knob_at_its_limit():
    (found,) = limits(controlled([1.0] * 60, line(0.2, 0.3, 36) + [0.3] * 24))
    assert found.text == "epsilon_high stayed at its highest value, 0.3, for 83% of the last half"  # 25 of 30
    assert found.severity == "bad"
    assert "low and high" in found.advice
    (found,) = limits(controlled([0.5] * 60, line(0.3, 0.2, 20) + [0.2] * 40))
    assert found.text.startswith("epsilon_high stayed at its lowest value, 0.2,")
    assert (found.severity, found.advice) == ("note", "")  # the target was held
    (found,) = limits(controlled([1.0] * 60, [0.2] * 60))
    assert found.text == "epsilon_high did not move from 0.2"


def test_knob_within_its_limits():
    assert limits(controlled([1.0] * 60, [0.3] * 45 + line(0.29, 0.2, 15))) == []  # for half of the last half
    assert limits(controlled([1.0] * 29, [0.3] * 29)) == []


def test_knob_of_a_run_without_settings():
    run = controlled([1.0] * 60, [0.2] + [0.3] * 59)
    bare = made(series={key: values for key, (_, values) in run.series.items()})
    assert len(limits(bare)) == 1
    # whose knob it is cannot be told
    two = made(series={key: values for key, (_, values) in run.series.items()} | {"knobs/b": [0.2] + [0.3] * 59})
    assert limits(two) == []
    # a schedule has no target
    assert limits(made(series={"knobs/epsilon_high": [0.2] + [0.3] * 59})) == []
