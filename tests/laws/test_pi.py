import pytest

from trl_entropy.laws import PI, Reading


def run(law: PI, errors: list[float]) -> list[float]:
    """The values of the law without clipping."""
    values, memory = [], 0.0
    for error in errors:
        value, memory = law(99.0, memory, Reading(error, progress=0.0, epoch=0.0, num_epochs=1))
        values.append(value)
    return values


def test_values_by_hand():
    # kp = 2, ki = 0.5: 2 * 1 + 0.5 * 0 = 2; 2 * -3 + 0.5 * 1 = -5.5; 2 * 4 + 0.5 * (1 - 3) = 7
    assert run(PI(kp=2.0, ki=0.5), [1.0, -3.0, 4.0]) == [2.0, -5.5, 7.0]


def test_sum_leaves_out_the_newest_error():
    assert run(PI(kp=0.0, ki=1.0), [1.0, 1.0, 1.0]) == [0.0, 1.0, 2.0]


def test_sum_is_never_clamped():
    # 100 errors of 10 stay in the sum: ki * 1000 = 10, then one more on each side
    assert run(PI(kp=0.0, ki=0.01), [10.0] * 101)[-1] == pytest.approx(10.0, rel=1e-12)


def test_sum_with_anti_windup_leaves_out_errors_that_push_further_out():
    # kp = ki = 1 in [-1, 1]: 3 is above, so its error stays out; 0.5 + 0 goes in; 0.6 + 0.5 = 1.1 is above, stays out;
    # -0.7 + 0.5 = -0.2 goes in; -3 + (0.5 - 0.7) = -3.2 is below, stays out; 0.1 - 0.2
    law, values, memory = PI(kp=1.0, ki=1.0, anti_windup=True), [], 0.0
    for error in (3.0, 0.5, 0.6, -0.7, -3.0, 0.1):
        value, memory = law(99.0, memory, Reading(error, 0.0, 0.0, 1, low=-1.0, high=1.0))
        values.append(value)
    assert values == pytest.approx([3.0, 0.5, 1.1, -0.2, -3.2, -0.1], abs=1e-12)
    assert memory == pytest.approx(0.5 - 0.7 + 0.1, abs=1e-12)


def test_sum_with_anti_windup_takes_errors_that_lead_back():
    law = PI(kp=0.0, ki=1.0, anti_windup=True)
    # the sum 5 holds the knob above its bound: the error -1 leads back and goes in, 1 would not
    assert law(1.0, 5.0, Reading(-1.0, 0.0, 0.0, 1, low=-1.0, high=1.0)) == (5.0, 4.0)
    assert law(1.0, 5.0, Reading(1.0, 0.0, 0.0, 1, low=-1.0, high=1.0)) == (5.0, 5.0)


@pytest.mark.parametrize("value", [1, "true", None])
def test_anti_windup_of_another_kind_is_refused(value):
    with pytest.raises(ValueError, match="anti_windup must be true or false, got"):
        PI(anti_windup=value)


def test_value_in_force_does_not_matter():
    law, at = PI(), Reading(0.3, 0.0, 0.0, 1)
    assert law(-1.0, 0.5, at) == law(1.0, 0.5, at)


def test_defaults_are_those_of_the_released_code():
    assert PI() == PI(kp=1.0, ki=0.01, anti_windup=False)
    assert PI.uses_target


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize("name", ["kp", "ki"])
def test_gain_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        PI(**{name: value})
