import math

import pytest
import torch

from trl_entropy.rollouts import PromptTemperature


ALL, SOME, NONE = [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]


def after(groups: list[list[float]], **parameters) -> float:
    """The temperature of a problem after these visits, from 1."""
    rule, memory = PromptTemperature(**parameters), {}
    for rewards in groups:
        memory = rule.visited(memory, "x", torch.tensor(rewards), 1.0)
    return rule.temperature(memory, "x", 1.0)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], 1.0),
        ([ALL], 1.05),
        ([ALL, ALL], 1.1),
        ([ALL, ALL, SOME], 1.05),
        ([ALL, NONE, NONE, NONE], 1.0),
        ([NONE, NONE, ALL], 1.05),
        ([ALL] * 4, 1.2),
        ([ALL] * 9, 1.2),
        # the count stops where the bound is reached, at 4
        ([ALL] * 20 + [SOME], 1.15),
        ([ALL] * 9 + [SOME] * 4, 1.0),
        ([ALL, [1.0, math.nan]], 1.0),
    ],
)
def test_temperature_by_hand(groups, expected):
    assert after(groups) == pytest.approx(expected, abs=1e-12)


def test_count_stops_at_the_first_that_reaches_the_bound():
    # 1.3 is 3 steps of 0.1, though (1.3 - 1.0) / 0.1 is more than 3 in floats; 1.25 is reached within the third
    assert after([ALL] * 9 + [SOME], step=0.1, highest=1.3) == pytest.approx(1.2)
    assert after([ALL] * 9 + [SOME], step=0.1, highest=1.25) == pytest.approx(1.2)
    assert after([ALL] * 9, step=0.1, highest=0.5) == after([ALL] * 9, step=0.0) == 1.0


def test_count_is_that_of_the_temperature_of_the_run():
    rule = PromptTemperature()
    assert rule.visited({"x": 4}, "x", torch.tensor(ALL), 1.1) == {"x": 2}
    assert rule.visited({"x": 4}, "x", torch.tensor(SOME), 1.1) == {"x": 1}
    assert rule.visited({"x": 4}, "x", torch.tensor(ALL), 1.2) == {}


def test_step_and_bound_are_parameters():
    assert after([ALL] * 2, step=0.2, highest=1.3) == 1.3
    assert after([ALL] * 2, step=0.1, highest=1.3) == 1.2
    assert after([ALL] * 2, step=0.0) == 1.0


def test_bound_below_the_temperature_of_the_run_lowers_nothing():
    rule = PromptTemperature(highest=0.8)
    assert rule.temperature({"x": 3}, "x", 1.0) == 1.0


def test_each_problem_has_its_own_count_and_the_memory_is_not_changed_in_place():
    rule, before = PromptTemperature(), {"x": 1, "y": 2}
    assert rule.visited(before, "x", torch.tensor(ALL), 1.0) == {"x": 2, "y": 2}
    assert rule.visited(before, "x", torch.tensor(SOME), 1.0) == {"y": 2}
    assert rule.visited(before, "z", torch.tensor(NONE), 1.0) == before == {"x": 1, "y": 2}
    assert rule.temperature(before, "y", 1.0) == 1.1


@pytest.mark.parametrize("name", ["step", "highest"])
@pytest.mark.parametrize("value", [-0.1, math.inf, "1"])
def test_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        PromptTemperature(**{name: value})


def test_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="highest must be above 0"):
        PromptTemperature(highest=0)


def test_it_sets_temperatures():
    assert PromptTemperature.acts == {"temperatures"}
    assert PromptTemperature().columns == ()
