import pytest
from toy import logged, parameters, same

from trl_entropy.control.laws import BangBang, Observation


def observation(error: float, **bounds) -> Observation:
    return Observation(error=error, progress=0.3, epoch=0.5, num_epochs=2, **bounds)


def test_steps_by_hand():
    law = BangBang(step=0.25)
    assert law(0.5, {}, observation(0.001)) == (0.75, {})
    assert law(0.5, {}, observation(-0.001)) == (0.25, {})


def test_error_of_zero_goes_up():
    assert BangBang(step=0.25)(0.5, {}, observation(0.0)) == (0.75, {})


def test_step_does_not_depend_on_the_size_of_the_error():
    assert BangBang(step=0.25)(0.5, {}, observation(100.0)) == BangBang(step=0.25)(0.5, {}, observation(1e-9))


def test_defaults_are_those_of_the_paper():
    assert BangBang() == BangBang(step=0.05, otherwise=None)
    assert BangBang.uses_target


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", True])
def test_step_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="step must be a number >= 0, got"):
        BangBang(step=value)


def test_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="step must be > 0, got 0: with it the knob never moves"):
        BangBang(step=0)


def follow(law: BangBang, errors: list[float], low: float, high: float) -> tuple[list[float], list[float]]:
    """What a knob that starts at 0 gets, clipped as the controller does, and what the law remembers."""
    value, memory, values, remembered = 0.0, {}, [], []
    for error in errors:
        value, memory = law(value, memory, observation(error, low=low, high=high))
        value = min(high, max(low, value))
        values.append(value)
        remembered.append(memory["value"])
    return values, remembered


def test_off_by_hand():
    # asked for twice, not, not, asked for: the value goes 0.25, 0.5, 0.25, 0 and 0.25
    values, remembered = follow(BangBang(step=0.25, otherwise=-0.5), [1.0, 0.0, -0.1, -9.0, 0.1], -1.0, 1.0)
    assert values == [0.25, 0.5, -0.5, -0.5, 0.25]
    assert remembered == [0.25, 0.5, 0.25, 0.0, 0.25]


def test_off_remembers_no_more_than_its_range():
    # three steps at each bound, and back from it by whole steps
    values, remembered = follow(BangBang(step=0.75, otherwise=0.0), [-1.0] * 3 + [1.0] * 3 + [-1.0, 1.0], 0.0, 1.0)
    assert remembered == [0.0, 0.0, 0.0, 0.75, 1.0, 1.0, 0.25, 1.0]
    assert values == [0.0, 0.0, 0.0, 0.75, 1.0, 1.0, 0.0, 1.0]


def test_without_off_memory_is_handed_on():
    assert BangBang(step=0.25)(0.5, {"value": 7.0}, observation(1.0)) == (0.75, {"value": 7.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0", True])
def test_off_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="otherwise must be a number, got"):
        BangBang(otherwise=value)


# Skywork-OR1's coefficient, with TRL's own as the oracle


def test_on_entropy_coef_it_trains_as_the_adaptive_entropy_of_trl(run, tmp_path):
    settings = {"learning_rate": 5e-2, "max_steps": 8}
    start = sorted(logged(run(plain=True, output_dir=tmp_path / "none", **settings), "entropy"))
    target = (start[4] + start[5]) / 2
    adaptive = {"use_adaptive_entropy": True, "entropy_coef_delta": 0.25, "entropy_coef_max": 0.6}
    theirs = run(plain=True, output_dir=tmp_path / "trl", entropy_target=target, **adaptive, **settings)
    law = {"law": "bang_bang", "step": 0.25, "otherwise": 0.0}
    ours = run(
        output_dir=tmp_path / "ours",
        controllers={"skywork": {**law, "knob": "entropy_coef", "target": target, "low": 0.0, "high": 0.6}},
        **settings,
    )
    coefs, entropies = logged(theirs, "entropy_coef"), logged(theirs, "entropy")
    applied = [coef if entropy <= target else 0.0 for coef, entropy in zip(coefs, entropies, strict=True)]
    assert applied[:-1] != coefs[:-1]  # a coefficient was there and did not act
    assert max(applied[:-1]) > 0
    assert logged(ours, "knobs/entropy_coef") == [0.0, *applied[:-1]]
    assert logged(ours, "entropy") == entropies
    assert same(parameters(ours), parameters(theirs))
