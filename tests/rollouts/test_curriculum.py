import math

import pytest

from trl_entropy.rollouts import Curriculum


def stages(numbers: list, **parameters) -> list[list[int]]:
    return Curriculum(column="hard", **parameters).stages({"hard": numbers}.__getitem__, len(numbers))


def test_stages_by_hand():
    # in order: 1 at place 1, 2 at 2, 3 at 0, 4 at 4, 5 at 3; the first stage has one more
    assert stages([3, 1, 2.0, 5, 4]) == [[1, 2, 0], [4, 3]]
    assert stages([3, 1, 2.0, 5, 4], count=3) == [[1, 2], [0, 4], [3]]
    assert stages([3, 1, 2.0, 5, 4], count=1) == [[1, 2, 0, 4, 3]]


def test_equal_values_stay_in_the_order_of_the_dataset():
    assert stages([0.5, 0.0, 0.5, 0.0]) == [[1, 3], [0, 2]]


@pytest.mark.parametrize(("problems", "count"), [(7, 3), (8, 3), (9, 3), (16, 5)])
def test_stages_have_all_problems_once_and_sizes_that_differ_by_one(problems, count):
    found = stages([float(place * 7 % problems) for place in range(problems)], count=count)
    sizes = [len(stage) for stage in found]
    assert sorted(place for stage in found for place in stage) == list(range(problems))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (0.75, 3), (0.99, 3), (1.0, 3)]
)
def test_stages_share_the_run(progress, expected):
    # however often the problems were taken
    assert Curriculum(count=4).stage(0, passes=9.0, progress=progress) == expected


def test_stage_does_not_go_back():
    assert Curriculum(count=4).stage(2, passes=0.0, progress=0.1) == 2


@pytest.mark.parametrize(
    ("current", "passes", "expected"), [(0, 0.0, 0), (0, 4.9, 0), (0, 5.0, 1), (1, 4.9, 1), (1, 5.0, 2), (2, 50.0, 2)]
)
def test_stages_of_so_many_passes(current, passes, expected):
    # however far the run is; the last one goes on
    assert Curriculum(count=3, epochs=5).stage(current, passes, progress=0.0) == expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "2", True])
def test_column_that_holds_no_number_is_refused(value):
    with pytest.raises(ValueError, match="hard of problem 1 must be a number, got .*: a curriculum sorts by it"):
        stages([1.0, value])


def test_more_stages_than_problems_are_refused():
    with pytest.raises(ValueError, match="count=3 stages need at least that many problems, but the dataset has 2"):
        stages([1.0, 2.0], count=3)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None])
def test_count_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="count must be a whole number >= 1, got"):
        Curriculum(count=value)


@pytest.mark.parametrize("value", [-1, math.nan, "5"])
def test_epochs_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="epochs must be a number >= 0, got"):
        Curriculum(epochs=value)


def test_it_chooses_problems_by_its_column():
    assert Curriculum.acts == {"problems"}
    assert Curriculum().columns == ("semantic_entropy",)
