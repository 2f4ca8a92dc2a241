"""Effects, verdicts and the numbers of a run, by hand."""

import math

import pytest

from study import results
from study.statistics import (
    NOT_REPRODUCED,
    REPRODUCED,
    REVERSED,
    Effect,
    effect,
    kept_together,
    p_value,
    rank_correlation,
    verdict,
)


RUN = {
    "window": 10,
    "series": {
        "step": [10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
        "entropy": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        "reward": [None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        "entropy_change/predicted": [None, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0, None, None, None],
        "entropy_change/observed": [None, 2.0, 0.0, 4.0, 1.0, 6.0, 0.0, None, None, None],
        "staleness/updates": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
    },
    "scores": [
        {"step": 0, "avg@8": 0.2, "pass@8": 0.9, "response_entropy": 1.0},
        {"step": 50, "avg@8": 0.4, "pass@8": 0.8, "response_entropy": 0.5},
        {"step": 100, "avg@8": 0.6, "pass@8": 0.5, "response_entropy": 0.1},
    ],
}


def test_interval_is_students():
    found = effect([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    half = 4.302653 / math.sqrt(3)
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - half, abs=1e-6)
    assert found.high == pytest.approx(2 + half, abs=1e-6)
    assert f"{found}" == f"+2.00 ({2 - half:+.2f} to {2 + half:+.2f})"


def test_one_seed_says_nothing():
    assert verdict(effect([5.0]), 1) == NOT_REPRODUCED


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="one seed at least"):
        effect([])


@pytest.mark.parametrize(
    ("low", "high", "sign", "margin", "expected"),
    [
        (0.1, 0.2, 1, None, REPRODUCED),
        (0.1, 0.2, -1, None, REVERSED),
        (-0.2, -0.1, -1, None, REPRODUCED),
        (-0.2, -0.1, 1, None, REVERSED),
        (-0.1, 0.2, 1, None, NOT_REPRODUCED),
        (0.0, 0.2, 1, None, NOT_REPRODUCED),
        (-0.04, 0.05, 0, 0.05, REPRODUCED),
        (-0.04, 0.06, 0, 0.05, NOT_REPRODUCED),
    ],
)
def test_verdict(low, high, sign, margin, expected):
    assert verdict(Effect((low + high) / 2, low, high, 5), sign, margin) == expected


def test_p_value_and_interval_say_the_same():
    # t = 2 / (1 / sqrt(3)) = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14)
    assert p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    half = effect([1.0, 2.0, 3.0]).high - 2
    assert p_value([1.0 + half - 2, half, 3.0 + half - 2]) == pytest.approx(0.05, abs=1e-9)
    assert p_value([5.0]) == p_value([-1.0, 1.0]) == 1
    assert p_value([2.0, 2.0]) == 0


def test_false_discoveries():
    # at 5 %, four effects stand up to the largest k with p_k <= k * 0.05 / 4
    assert kept_together([0.04, 0.001, 0.6, 0.02]) == [False, True, False, True]
    assert kept_together([0.03, 0.03, 0.03, 0.03]) == [True] * 4


def test_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)
    assert rank_correlation([1, 2, 3], [1, 1, 1]) is None


def test_numbers_of_a_run():
    assert results.at_end("entropy")(RUN) == pytest.approx(0.15)
    assert results.at_end("reward")(RUN) == pytest.approx(0.85)  # the last two of nine
    assert results.change("entropy")(RUN) == pytest.approx(-0.85)
    assert results.change("reward")(RUN) == pytest.approx(0.75)
    assert results.total("entropy_change/predicted")(RUN) == pytest.approx(240)
    assert results.score("avg@8")(RUN) == 0.6
    assert results.gain("pass@8")(RUN) == pytest.approx(-0.4)
    assert results.ranks("response_entropy", "pass@8")(RUN) == pytest.approx(1)
    assert results.ranks("response_entropy", "avg@8")(RUN) == pytest.approx(-1)
    assert results.miss(0.25)(RUN) == pytest.approx(0.1)


def test_ranks_over_arms_by_seed(monkeypatch):
    numbers = {("a", 1): (1, 10), ("b", 1): (2, 30), ("c", 1): (3, 20), ("a", 2): (1, 3), ("b", 2): (2, 2)}
    monkeypatch.setattr(results, "load", lambda arm, seed: numbers.get((arm, seed)))
    found = results.ranks_over(["a", "b", "c"], lambda run: run[0], lambda run: run[1], (1, 2))
    assert found == pytest.approx([0.5])  # 1 - 6 * 2 / (3 * 8); seed 2 lacks an arm
    assert results.ranks_over(["a", "b"], lambda run: run[0], lambda run: run[1], (1, 2)) == pytest.approx([1, -1])


def test_link_takes_the_steps_after_so_many_updates():
    assert results.link(1)(RUN) == pytest.approx(1)  # 1, 2, 3 against 2, 4, 6
    assert results.link(0)(RUN) == pytest.approx(0, abs=1e-12)  # 5, 6, 7 against 0, 1, 0


def test_score_at_a_reward_is_between_two_evaluations():
    assert results.at_reward(0.6, "avg@8")(RUN) == pytest.approx(0.4 + 0.2 * (70 - 50) / 50)
    assert results.at_reward(0.1, "pass@8")(RUN) == pytest.approx(0.9 - 0.1 * 20 / 50)
    assert results.at_reward(0.95, "avg@8")(RUN) is None
