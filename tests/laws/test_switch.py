import math

import pytest

from trl_entropy.control.laws import Reading, Switch


def value(law: Switch, progress: float) -> float:
    return law(0.9, {}, Reading(0.0, progress, epoch=0.0, num_epochs=1))[0]


def test_values_by_hand():
    assert [value(Switch(), k / 4) for k in range(5)] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert [value(Switch(at=0.3, before=0.2, after=0.7), k / 4) for k in range(5)] == [0.2, 0.2, 0.7, 0.7, 0.7]
    assert [value(Switch(at=0.0), k / 4) for k in range(3)] == [1.0, 1.0, 1.0]


def test_value_and_error_do_not_matter_and_memory_is_handed_on():
    assert Switch()(0.1, {"x": 7.0}, Reading(5.0, 0.75, 0.0, 1)) == (1.0, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Switch.uses_target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at": 1.1}, "at must be a number >= 0 and <= 1, got 1.1"),
        ({"before": math.nan}, "before must be a number, got nan"),
        ({"after": "1"}, "after must be a number, got '1'"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Switch(**changes)
