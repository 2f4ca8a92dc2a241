import math

import pytest
from toy import parameters, same

from trl_entropy.control.laws import Observation, Schedule
from trl_entropy.control.laws.schedule import constant, stage, switch


def value(law: Schedule, progress: float) -> float:
    return law(0.9, {}, Observation(0.0, progress, epoch=0.0, num_epochs=1))[0]


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


def test_where_begin_is_finish_the_value_jumps():
    law = Schedule(start=0.1, end=0.3, begin=0.5, finish=0.5)
    assert [value(law, progress) for progress in (0.0, 0.4999, 0.5, 1.0)] == [0.1, 0.1, 0.3, 0.3]
    assert [value(Schedule(begin=0.5, finish=0.5, shape="cosine"), k / 2) for k in range(3)] == [0.0, 1.0, 1.0]


def test_stage_by_hand():
    # 0 in the first half, then linearly to 1: after 3/4 of the steps 2 * 3/4 - 1 = 1/2
    assert [value(stage(), k / 8) for k in range(9)] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(value(stage(), k / 701) == max(0.0, 2 * (k / 701) - 1) for k in range(702))


def test_switch_by_hand():
    assert [value(switch(), k / 4) for k in range(5)] == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert [value(switch(at=0.3, before=0.2, after=0.7), k / 4) for k in range(5)] == [0.2, 0.2, 0.7, 0.7, 0.7]
    assert [value(switch(at=0.0), k / 4) for k in range(3)] == [1.0, 1.0, 1.0]


def test_constant_is_exact():
    assert [value(constant(), k / 4) for k in range(5)] == [0.0] * 5
    assert all(value(constant(0.1), k / 701) == 0.1 for k in range(702))


def test_constant_trains_as_the_flag_does(run, tmp_path):
    law = {"law": "constant", "knob": "entropy_coef", "value": 0.5}
    held = run(output_dir=tmp_path / "held", controllers={"fixed": law})
    set_once = run(output_dir=tmp_path / "flag", entropy_coef=0.5)
    none = run(output_dir=tmp_path / "none")
    assert same(parameters(held), parameters(set_once))
    assert not same(parameters(held), parameters(none))


def test_value_and_error_do_not_matter_and_memory_is_handed_on():
    assert Schedule()(0.1, {"x": 7.0}, Observation(5.0, 0.75, 0.0, 1)) == (0.75, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Schedule.uses_target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": math.nan}, "start must be a number, got nan"),
        ({"end": "1"}, "end must be a number, got '1'"),
        ({"begin": -0.1}, "begin must be a number >= 0 and <= 1, got -0.1"),
        ({"finish": 1.1}, "finish must be a number >= 0 and <= 1, got 1.1"),
        ({"begin": 0.5, "finish": 0.4}, "begin must not be above finish, got begin=0.5, finish=0.4"),
        ({"shape": "sine"}, "shape must be one of linear, cosine, got 'sine'"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**changes)


@pytest.mark.parametrize(
    ("setting", "given", "message"),
    [
        (switch, {"at": 1.1}, "at must be a number >= 0 and <= 1, got 1.1"),
        (switch, {"before": math.nan}, "before must be a number, got nan"),
        (switch, {"after": "1"}, "after must be a number, got '1'"),
        *((constant, {"value": wrong}, "value must be a number, got") for wrong in (math.inf, "1", None, True)),
    ],
)
def test_wrong_values_of_settings_are_refused_by_their_own_names(setting, given, message):
    with pytest.raises(ValueError, match=message):
        setting(**given)
