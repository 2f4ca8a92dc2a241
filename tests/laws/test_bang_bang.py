import pytest

from trl_entropy.laws import BangBang, Reading


def reading(error: float) -> Reading:
    return Reading(error=error, progress=0.3, epoch=0.5, num_epochs=2)


def test_steps_by_hand():
    law = BangBang(step=0.25)
    assert law(0.5, {}, reading(0.001)) == (0.75, {})
    assert law(0.5, {}, reading(-0.001)) == (0.25, {})


def test_error_of_zero_goes_up():
    assert BangBang(step=0.25)(0.5, {}, reading(0.0)) == (0.75, {})


def test_step_does_not_depend_on_the_size_of_the_error():
    assert BangBang(step=0.25)(0.5, {}, reading(100.0)) == BangBang(step=0.25)(0.5, {}, reading(1e-9))


def test_defaults_are_those_of_the_paper():
    assert BangBang() == BangBang(step=0.05)
    assert BangBang.uses_target


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", True])
def test_step_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="step must be a number >= 0, got"):
        BangBang(step=value)


def test_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="step must be > 0, got 0: with it the knob never moves"):
        BangBang(step=0)
