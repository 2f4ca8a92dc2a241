import pytest

from trl_entropy.control.laws import PI, Integral, Observation


def observation(error: float, **bounds) -> Observation:
    return Observation(error=error, progress=0.3, epoch=0.5, num_epochs=2, **bounds)


def test_values_by_hand():
    # 0.5 + 0.25 * 2, 0.5 - 0.25 * 4, 0.5 + 0
    assert Integral(rate=0.25)(0.5, {}, observation(2.0)) == (1.0, {})
    assert Integral(rate=0.25)(0.5, {}, observation(-4.0)) == (-0.5, {})
    assert Integral(rate=0.25)(0.5, {}, observation(0.0)) == (0.5, {})


def test_memory_is_handed_on():
    assert Integral(rate=0.5)(1.0, {"x": 7.0}, observation(1.0)) == (1.5, {"x": 7.0})


def follow(law, errors: list[float], low: float, high: float) -> list[float]:
    """The values of a knob that starts at 0, clipped as the controller does."""
    value, memory, values = 0.0, {}, []
    for error in errors:
        value, memory = law(value, memory, observation(error, low=low, high=high))
        value = min(high, max(low, value))
        values.append(value)
    return values


def test_inside_its_range_it_is_the_sum_of_the_errors():
    # the same as PI without its proportional part, whose sum leaves out the newest error
    errors = [0.5, -0.25, 1.0, -0.125, 0.0]
    values = follow(Integral(rate=0.5), errors, -10.0, 10.0)
    assert values == [0.25, 0.125, 0.625, 0.5625, 0.5625]
    assert follow(PI(kp=0.0, ki=0.5), [*errors, 0.0], -10.0, 10.0)[1:] == values


def test_it_leaves_its_bound_as_soon_as_the_error_turns():
    # 50 steps of -1 hold it at 0, where the sum of PI is -50
    errors = [-1.0] * 50 + [1.0] * 2
    assert follow(Integral(rate=0.25), errors, 0.0, 1.0)[-3:] == [0.0, 0.25, 0.5]
    assert follow(PI(kp=0.0, ki=0.25), errors, 0.0, 1.0)[-3:] == [0.0, 0.0, 0.0]


def test_defaults():
    assert Integral() == Integral(rate=0.01)
    assert Integral.uses_target


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", True])
def test_rate_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="rate must be a number >= 0, got"):
        Integral(rate=value)


def test_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="rate must be > 0, got 0: with it the knob never moves"):
        Integral(rate=0)
