import pytest

from trl_entropy.control.laws import Epoch, Observation


def value(epoch: float, num_epochs: int) -> float:
    return Epoch()(0.9, {}, Observation(0.0, 0.5, epoch, num_epochs))[0]


def test_values_by_hand():
    # (e - 1) / (E - 1) in epoch e of 5
    assert [value(e, 5) for e in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [value(e, 2) for e in range(2)] == [0.0, 1.0]


def test_value_is_constant_within_an_epoch():
    assert {value(1 + k / 10, 3) for k in range(10)} == {0.5}


def test_an_epoch_that_ends_a_rounding_error_early_has_ended():
    assert value(sum([0.1] * 10), 3) == 0.5  # 0.9999999999999999


def test_it_stays_at_one_after_the_last_epoch():
    assert value(3.0, 3) == 1.0


@pytest.mark.parametrize("num_epochs", [0, 1])
def test_run_of_one_epoch_is_refused(num_epochs):
    with pytest.raises(ValueError, match=f"needs a run of 2 epochs or more, got {num_epochs}: raise num_train_epochs"):
        value(0.0, num_epochs)


def test_memory_is_handed_on():
    assert Epoch()(0.1, {"x": 7.0}, Observation(5.0, 0.5, 1.0, 3)) == (0.5, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Epoch.uses_target
