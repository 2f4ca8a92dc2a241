import pytest

from trl_entropy.control.laws import PI, Observation


def observation(error: float, low: float = -1e9, high: float = 1e9) -> Observation:
    return Observation(error, progress=0.0, epoch=0.0, num_epochs=1, low=low, high=high)


def run(law: PI, errors: list[float], value: float = 99.0, follow: bool = False) -> list[float]:
    """The values of the law without clipping; with `follow` each is in force when the next is decided."""
    values, memory = [], {}
    for error in errors:
        decided, memory = law(value, memory, observation(error))
        value = decided if follow else value
        values.append(decided)
    return values


def test_values_by_hand():
    # kp = 2, ki = 0.5: 2 * 1 + 0.5 * 0 = 2; 2 * -3 + 0.5 * 1 = -5.5; 2 * 4 + 0.5 * (1 - 3) = 7
    assert run(PI(kp=2.0, ki=0.5), [1.0, -3.0, 4.0]) == [2.0, -5.5, 7.0]


def test_sum_leaves_out_the_newest_error():
    assert run(PI(kp=0.0, ki=1.0), [1.0, 1.0, 1.0]) == [0.0, 1.0, 2.0]


def test_sum_is_never_clamped():
    # 100 errors of 10 stay in the sum: ki * 1000 = 10, then one more on each side
    assert run(PI(kp=0.0, ki=0.01), [10.0] * 101)[-1] == pytest.approx(10.0, rel=1e-12)


def test_default_is_the_released_code_bit_for_bit():
    errors = [0.3, -0.7, 1e-17, 0.1, -0.0, 2.9, -1e3, 0.1, 1 / 3]
    expected, total = [], 0.0
    for error in errors:
        expected.append(1.0 * error + 0.01 * total)
        total += error
    assert [value.hex() for value in run(PI(), errors)] == [value.hex() for value in expected]


def test_memory_handed_in_is_not_changed():
    law, memory = PI(kd=1.0, smoothing=0.5), {"sum": 2.0, "average": 1.0}
    _, after = law(0.0, memory, observation(3.0))
    assert memory == {"sum": 2.0, "average": 1.0}
    assert after == {"sum": 4.0, "average": 2.0}  # the smoothed error is 0.5 * 1 + 0.5 * 3 = 2


def test_sum_with_anti_windup_leaves_out_errors_that_push_further_out():
    # kp = ki = 1 in [-1, 1]: 3 is above, so its error stays out; 0.5 + 0 goes in; 0.6 + 0.5 = 1.1 is above, stays out;
    # -0.7 + 0.5 = -0.2 goes in; -3 + (0.5 - 0.7) = -3.2 is below, stays out; 0.1 - 0.2
    law, values, memory = PI(kp=1.0, ki=1.0, anti_windup=True), [], {}
    for error in (3.0, 0.5, 0.6, -0.7, -3.0, 0.1):
        value, memory = law(99.0, memory, observation(error, low=-1.0, high=1.0))
        values.append(value)
    assert values == pytest.approx([3.0, 0.5, 1.1, -0.2, -3.2, -0.1], abs=1e-12)
    assert memory["sum"] == pytest.approx(0.5 - 0.7 + 0.1, abs=1e-12)


def test_sum_with_anti_windup_takes_errors_that_lead_back():
    law = PI(kp=0.0, ki=1.0, anti_windup=True)

    def after(error: float) -> tuple[float, float]:
        value, memory = law(1.0, {"sum": 5.0, "average": 0.0}, observation(error, low=-1.0, high=1.0))
        return value, memory["sum"]

    # the sum 5 holds the knob above its bound: the error -1 leads back and goes in, 1 would not
    assert after(-1.0) == (5.0, 4.0)
    assert after(1.0) == (5.0, 5.0)


def test_derivative_by_hand():
    # kd = 0.5 alone: nothing before the first error; 0.5 * (3 - 1) = 1; 0.5 * (2 - 3) = -0.5
    assert run(PI(kp=0.0, ki=0.0, kd=0.5), [1.0, 3.0, 2.0]) == [0.0, 1.0, -0.5]
    # with kp = 2, ki = 0.5: 2; 6 + 0.5 + 1 = 7.5; 4 + 2 - 0.5 = 5.5
    assert run(PI(kp=2.0, ki=0.5, kd=0.5), [1.0, 3.0, 2.0]) == [2.0, 7.5, 5.5]


def test_dead_band_by_hand():
    # below 0.5 in size an error is 0, at 0.5 it counts: sums 0, 0, 0.5, 0.5
    assert run(PI(kp=2.0, ki=1.0, dead_band=0.5), [0.25, -0.25, 0.5, 0.25]) == [0.0, 0.0, 1.0, 0.5]
    # the derivative is of the errors that count: 1 - 0, then 0 - 1
    assert run(PI(kp=0.0, ki=0.0, kd=1.0, dead_band=0.5), [0.25, 1.0, 0.25]) == [0.0, 1.0, -1.0]


def test_smoothing_by_hand():
    # 0.75 of the average: 4; 3 + 0 = 3; 2.25 + 0 = 2.25; 1.6875 - 1 = 0.6875
    assert run(PI(kp=1.0, ki=0.0, smoothing=0.75), [4.0, 0.0, 0.0, -4.0]) == [4.0, 3.0, 2.25, 0.6875]
    # the sum is of smoothed errors: 0, 4, 7, 9.25
    assert run(PI(kp=0.0, ki=1.0, smoothing=0.75), [4.0, 0.0, 0.0, -4.0]) == [0.0, 4.0, 7.0, 9.25]


def test_dead_band_is_of_the_smoothed_error():
    # averages 1, 0.5, 0.25: the last is inside; the average itself goes on, 0.125 + 1 = 1.125
    assert run(PI(kp=1.0, ki=0.0, smoothing=0.5, dead_band=0.5), [1.0, 0.0, 0.0, 2.0]) == [1.0, 0.5, 0.0, 1.125]


def test_slew_by_hand():
    # at most 0.5 a step from the value in force: 0 -> 3 wanted, -1 wanted, 0.75 wanted
    law = PI(kp=1.0, ki=0.0, slew=0.5)
    assert run(law, [3.0, 3.0, -1.0, 0.75], value=0.0, follow=True) == [0.5, 1.0, 0.5, 0.75]


def test_sum_with_anti_windup_leaves_out_errors_that_push_against_the_slew():
    # wanted 3 and 0.25 + 0 from 0: the first is cut to 0.5 and stays out of the sum, the second is reached
    law = PI(kp=1.0, ki=1.0, slew=0.5, anti_windup=True)
    value, memory = law(0.0, {}, observation(3.0))
    assert (value, memory["sum"]) == (0.5, 0.0)
    value, memory = law(value, memory, observation(0.25))
    assert (value, memory["sum"]) == (0.25, 0.25)
    # without it both go in: 3, then 0.25 + 3 cut to 1
    law = PI(kp=1.0, ki=1.0, slew=0.5)
    value, memory = law(0.0, {}, observation(3.0))
    assert law(value, memory, observation(0.25)) == (1.0, {"sum": 3.25, "average": 0.25})


def test_value_in_force_does_not_matter_without_a_slew():
    law, memory = PI(), {"sum": 0.5, "average": 0.1}
    assert law(-1.0, memory, observation(0.3)) == law(1.0, memory, observation(0.3))


def test_defaults_are_those_of_the_released_code():
    options = {"anti_windup": False, "kd": 0.0, "dead_band": 0.0, "smoothing": 0.0, "slew": None}
    assert PI() == PI(kp=1.0, ki=0.01, **options)
    assert PI.uses_target


@pytest.mark.parametrize("value", [1, "true", None])
def test_anti_windup_of_another_kind_is_refused(value):
    with pytest.raises(ValueError, match="anti_windup must be true or false, got"):
        PI(anti_windup=value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize("name", ["kp", "ki", "kd", "dead_band", "slew"])
def test_setting_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        PI(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothing": -0.1}, "smoothing must be a number >= 0 and <= 1, got -0.1"),
        ({"smoothing": 1}, "smoothing must be < 1, got 1: with it the first error would count forever"),
        ({"slew": 0}, "slew must be > 0, got 0: with it the knob never moves; null sets no limit"),
    ],
)
def test_limits_that_are_no_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PI(**changes)
