from trl_entropy.control.laws import Reading, Stage


def value(progress: float) -> float:
    return Stage()(0.9, {}, Reading(0.0, progress, epoch=0.0, num_epochs=1))[0]


def test_values_by_hand():
    # 0 in the first half, then linearly to 1: after 3/4 of the steps 2 * 3/4 - 1 = 1/2
    assert [value(k / 8) for k in range(9)] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0]


def test_value_and_error_do_not_matter_and_memory_is_handed_on():
    assert Stage()(0.1, {"x": 7.0}, Reading(5.0, 0.75, 0.0, 1)) == (0.5, {"x": 7.0})


def test_it_is_a_schedule():
    assert not Stage.uses_target
