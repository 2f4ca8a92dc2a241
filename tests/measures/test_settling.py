import math

import pytest

from trl_entropy.measures import Settling, settling


def test_values_by_hand():
    # means of two, from step 2 on: 3, 1.5, 0.75, 1, 1.25, within a quarter of 1 from step 4 on; the last half of six
    # steps: (0.5 + 1.5 + 1) / 3
    result = settling([4.0, 2.0, 1.0, 0.5, 1.5, 1.0], target=1.0, window=2, band=0.25)
    assert result == Settling(mean=1.0, error=0.0, time=4)


def test_middle_step_of_an_odd_number_belongs_to_the_last_half():
    result = settling([9.0, 3.0, 2.0], target=2.0, window=1)
    assert result == Settling(mean=2.5, error=0.25, time=3)


def test_error_is_negative_below_the_target():
    assert settling([0.5] * 20, target=2.0) == Settling(mean=0.5, error=-0.75, time=None)


def test_entropy_that_is_at_its_target_from_the_start_settles_with_the_first_window():
    assert settling([2.0] * 20, target=2.0).time == 10
    assert settling([2.0] * 20, target=2.0, window=3).time == 3


def test_time_starts_anew_when_the_entropy_leaves_the_band():
    entropies = [1.0] * 5 + [3.0] + [1.0] * 4
    assert settling(entropies, target=1.0, window=1).time == 7
    # the window of three holds the 3 until step 8
    assert settling(entropies, target=1.0, window=3).time == 9


def test_entropy_that_leaves_the_band_at_the_end_has_not_settled():
    assert settling([1.0] * 9 + [3.0], target=1.0, window=1).time is None


@pytest.mark.parametrize(("band", "time"), [(0.25, 1), (0.2499, None)])
def test_edge_of_the_band_belongs_to_it(band, time):
    assert settling([2.5, 1.5], target=2.0, window=1, band=band).time == time


def test_fewer_steps_than_a_window_have_not_settled():
    assert settling([1.0] * 9, target=1.0) == Settling(mean=1.0, error=0.0, time=None)


def test_target_that_moves():
    # means of two: 3, 2, 1.5, 1.5 of the entropies, 1.5, 1.75, 2, 2 of the targets; within a quarter from step 3 on
    result = settling([4.0, 2.0, 2.0, 1.0, 2.0], target=[1.0, 2.0, 1.5, 2.5, 1.5], window=2, band=0.25)
    assert result.time == 3
    # (2 + 1 + 2) / (1.5 + 2.5 + 1.5) = 10/11
    assert result.error == pytest.approx(-1 / 11, abs=1e-15)
    assert result.mean == pytest.approx(5 / 3, abs=1e-15)


def test_one_target_is_that_of_every_step():
    entropies = [1.0, 0.8, 0.6, 0.5, 0.45, 0.5]
    assert settling(entropies, 0.5, window=2) == settling(entropies, [0.5] * 6, window=2)


def test_entropy_that_is_not_finite_has_not_settled():
    result = settling([1.0, 1.0, math.nan, 1.0], target=1.0, window=1)
    assert math.isnan(result.mean)
    assert result.time == 4
    assert settling([1.0, 1.0, math.nan], target=1.0, window=1).time is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entropies": []}, "got 0 and 0"),
        ({"target": [1.0]}, "got 2 and 1"),
        ({"target": 0.0}, "target must be > 0, got 0.0"),
        ({"target": [1.0, -1.0]}, "target must be > 0, got -1.0"),
        ({"target": math.nan}, "target must be > 0, got nan"),
        ({"window": 0}, "got window=0 and band=0.1"),
        ({"band": -0.1}, "got window=10 and band=-0.1"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        settling(**{"entropies": [1.0, 1.0], "target": 1.0, **arguments})
