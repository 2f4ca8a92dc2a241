import pytest

from trl_entropy.laws import Ratchet, Reading


def reading(error: float) -> Reading:
    return Reading(error=error, progress=0.3, epoch=0.5, num_epochs=2)


def test_values_by_hand():
    assert Ratchet()(0.5, {}, reading(0.001)) == (1.0, {})
    assert Ratchet()(0.5, {}, reading(-100.0)) == (0.25, {})
    assert Ratchet(factor=4)(0.5, {}, reading(100.0)) == (2.0, {})


def test_error_of_zero_goes_down():
    # the paper doubles while entropy is below its start, and halves otherwise
    assert Ratchet()(0.5, {}, reading(0.0)) == (0.25, {})


def test_up_and_down_leads_back():
    value = 0.1
    for error in (1.0, 1.0, -1.0, -1.0):
        value, _ = Ratchet()(value, {}, reading(error))
    assert value == 0.1


def test_value_stays_a_number_above_zero():
    for error in (1.0, -1.0):
        value = 1.0
        for _ in range(3000):
            value, _ = Ratchet()(value, {}, reading(error))
        assert 0.0 < value < float("inf")


def test_memory_is_handed_on():
    assert Ratchet()(1.0, {"x": 7.0}, reading(1.0)) == (2.0, {"x": 7.0})


def test_defaults_are_those_of_the_paper():
    assert Ratchet() == Ratchet(factor=2.0)
    assert Ratchet.uses_target


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_start_at_zero_or_below_is_refused(value):
    message = rf"the ratchet law multiplies, so the knob must start above 0, got {value:g}: set initial, and low"
    with pytest.raises(ValueError, match=message):
        Ratchet().check_start(value)
    with pytest.raises(ValueError, match=message):
        Ratchet()(value, {}, reading(1.0))
    Ratchet().check_start(0.001)


@pytest.mark.parametrize("value", [0.5, -2.0, float("nan"), float("inf"), "2", True])
def test_factor_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="factor must be a number >= 1, got"):
        Ratchet(factor=value)


def test_factor_of_one_is_refused():
    with pytest.raises(ValueError, match="factor must be > 1, got 1: with it the knob never moves"):
        Ratchet(factor=1)
