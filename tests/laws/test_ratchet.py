import random

import pytest

from trl_entropy.control.laws import Observation, Ratchet


def observation(error: float) -> Observation:
    return Observation(error=error, progress=0.3, epoch=0.5, num_epochs=2)


def test_values_by_hand():
    assert Ratchet()(0.5, {}, observation(0.001)) == (1.0, {})
    assert Ratchet()(0.5, {}, observation(-100.0)) == (0.25, {})
    assert Ratchet(factor=4)(0.5, {}, observation(100.0)) == (2.0, {})


@pytest.mark.parametrize("value", [0.5, -0.5])
def test_error_of_zero_leaves_the_value(value):
    assert Ratchet(least=0.1)(value, {}, observation(0.0)) == (value, {})


def test_sign_changes_at_the_least_size():
    law, value, seen = Ratchet(least=0.1), 0.5, []
    for error in [-1.0] * 5 + [1.0] * 5:
        value, _ = law(value, {}, observation(error))
        seen.append(value)
    assert seen == pytest.approx([0.25, 0.125, -0.1, -0.2, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4])
    assert [law(0.0, {}, observation(error))[0] for error in (1.0, -1.0)] == [0.1, -0.1]
    law.check_start(0.0)
    law.check_start(-0.3)


def reference(zeta: float, entropy: float, target: float, zeta_min: float = 1e-4, zeta_max: float = 0.05) -> float:
    """REPO-R's controller, case by case."""
    if entropy > target:
        if zeta < 0:
            return max(-zeta_max, zeta * 2)
        return zeta / 2 if zeta / 2 >= zeta_min else -zeta_min
    if entropy < target:
        if zeta == 0:
            return zeta_min
        if zeta > 0:
            return min(zeta_max, zeta * 2)
        return zeta / 2 if zeta / 2 <= -zeta_min else zeta_min
    return zeta


@pytest.mark.parametrize("start", [0.0, 1e-3, -1e-3, 0.05])
def test_with_a_least_size_it_is_the_controller_of_repo_r(start):
    draw, value, expected, seen = random.Random(0), start, start, set()
    for step in range(5000):
        # long spells on one side, so that every bound is reached
        entropy = draw.choice([0.5, 0.5 + draw.random() * (-1) ** (step // 25), 0.5 + draw.uniform(-0.1, 0.1)])
        value, _ = Ratchet(least=1e-4)(value, {}, observation(0.5 - entropy))
        value = min(0.05, max(-0.05, value))  # as its controller does
        expected = reference(expected, entropy, 0.5)
        assert value == expected
        seen.add(value)
    assert {0.05, -0.05, 1e-4, -1e-4} <= seen


def test_up_and_down_leads_back():
    value = 0.1
    for error in (1.0, 1.0, -1.0, -1.0):
        value, _ = Ratchet()(value, {}, observation(error))
    assert value == 0.1


def test_value_stays_a_number_above_zero():
    for error in (1.0, -1.0):
        value = 1.0
        for _ in range(3000):
            value, _ = Ratchet()(value, {}, observation(error))
        assert 0.0 < value < float("inf")


def test_memory_is_handed_on():
    assert Ratchet()(1.0, {"x": 7.0}, observation(1.0)) == (2.0, {"x": 7.0})


def test_defaults_are_those_of_the_paper():
    assert Ratchet() == Ratchet(factor=2.0, least=0.0)
    assert Ratchet.uses_target


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_start_at_zero_or_below_is_refused(value):
    message = rf"the ratchet law multiplies, so the knob must start above 0, got {value:g}: set initial and low"
    with pytest.raises(ValueError, match=message):
        Ratchet().check_start(value)
    with pytest.raises(ValueError, match=message):
        Ratchet()(value, {}, observation(1.0))
    Ratchet().check_start(0.001)


@pytest.mark.parametrize("value", [-0.1, float("nan"), None])
def test_least_size_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="least must be a number >= 0, got"):
        Ratchet(least=value)


@pytest.mark.parametrize("value", [0.5, -2.0, float("nan"), float("inf"), "2", True])
def test_factor_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="factor must be a number >= 1, got"):
        Ratchet(factor=value)


def test_factor_of_one_is_refused():
    with pytest.raises(ValueError, match="factor must be > 1, got 1: with it the knob never moves"):
        Ratchet(factor=1)
