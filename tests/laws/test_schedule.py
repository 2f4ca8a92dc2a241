import math

import pytest

from trl_entropy.control.laws import Reading, Schedule, Stage


def value(law: Schedule, progress: float) -> float:
    return law(0.9, {}, Reading(0.0, progress, epoch=0.0, num_epochs=1))[0]


def test_linear_values_by_hand():
    assert [value(Schedule(), k / 4) for k in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # from 4 to 2 between 1/4 and 3/4 of the run: half of the way is 3
    law = Schedule(start=4.0, end=2.0, begin=0.25, finish=0.75)
    assert [value(law, k / 8) for k in range(9)] == [4.0, 4.0, 4.0, 3.5, 3.0, 2.5, 2.0, 2.0, 2.0]


def test_cosine_values_by_hand():
    # s = (1 - cos(pi t)) / 2: t = 1/4, 1/3, 1/2, 3/4 give (1 - 1/sqrt 2) / 2, 1/4, 1/2, (1 + 1/sqrt 2) / 2
    law = Schedule(start=4.0, end=0.0, shape="cosine")
    half = 1 / math.sqrt(2)
    found = [value(law, share) for share in (0.0, 1 / 4, 1 / 3, 1 / 2, 3 / 4, 1.0)]
    assert found == pytest.approx([4.0, 2 + 2 * half, 3.0, 2.0, 2 - 2 * half, 0.0], abs=1e-12)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_both_ends_are_exact(shape):
    law = Schedule(start=0.1, end=0.3, begin=0.2, finish=0.7, shape=shape)
    assert [value(law, progress) for progress in (0.0, 0.2, 0.7, 1.0)] == [0.1, 0.1, 0.3, 0.3]


def test_second_half_alone_is_the_stage_law():
    for k in range(17):
        at = Reading(0.0, k / 16, epoch=0.0, num_epochs=1)
        assert Schedule(begin=0.5)(0.9, {}, at) == Stage()(0.9, {}, at)


def test_value_and_error_do_not_matter_and_memory_is_handed_on():
    assert Schedule()(0.1, {"x": 7.0}, Reading(5.0, 0.75, 0.0, 1)) == (0.75, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Schedule.uses_target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": math.nan}, "start must be a number, got nan"),
        ({"end": "1"}, "end must be a number, got '1'"),
        ({"begin": -0.1}, "begin must be a number >= 0 and <= 1, got -0.1"),
        ({"finish": 1.1}, "finish must be a number >= 0 and <= 1, got 1.1"),
        ({"begin": 0.5, "finish": 0.5}, "begin must be below finish, got begin=0.5, finish=0.5; the switch law jumps"),
        ({"shape": "sine"}, "shape must be one of linear, cosine, got 'sine'"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**changes)
