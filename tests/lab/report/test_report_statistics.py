import math

import pytest
from made import made

from trl_entropy.lab.report.runs import Series
from trl_entropy.lab.report.statistics import Arm, arms, band, estimate, finite


def test_interval_by_hand():
    # mean 2, deviation 1, so 4.3027 / sqrt(3)
    assert estimate([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.4841), abs=1e-4)
    assert estimate([0.5]) == (0.5, None)
    assert estimate([0.5, 0.5]) == (0.5, 0.0)
    assert math.isnan(estimate([0.5, math.nan]).mean)
    assert (str(estimate([1.0, 2.0, 3.0])), str(estimate([0.5]))) == ("2.00 ± 2.48", "0.50")
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])


def grouped(*runs) -> list[tuple[str, int]]:
    return [(arm.name, len(arm.runs)) for arm in arms(runs)]


def test_runs_that_differ_in_the_seed_alone_are_one_arm():
    def run(path, **settings):
        return made(path.replace("/", "-"), path, series={}, settings=settings)

    assert grouped(run("x/a", seed=1, beta=0.1, output_dir="x"), run("y/a", seed=2, beta=0.1)) == [("a", 2)]
    assert grouped(run("x/a", seed=1, beta=0.1), run("y/a", seed=2, beta=0.2)) == [("x-a", 1), ("y-a", 1)]
    assert grouped(run("pi_s1", seed=1), run("pi_s2", seed=2)) == [("pi_s", 2)]
    assert grouped(run("1", seed=1), run("2", seed=2)) == [("1", 2)]
    assert grouped(run("x/a", seed=1, k=1), run("y/a", seed=1, k=2), run("y/b", seed=2, k=2)) == [
        ("x-a", 1),
        ("y-a", 2),
    ]


def test_runs_without_settings_are_one_arm_below_numbered_folders():
    def run(path):
        return made(path, path, series={})

    assert grouped(run("seed1/pi"), run("seed1/grpo"), run("seed2/pi")) == [("pi", 2), ("seed1/grpo", 1)]
    assert grouped(run("old/pi"), run("new/pi")) == [("old/pi", 1), ("new/pi", 1)]
    assert grouped(run("a1/pi"), run("b2/pi")) == [("a1/pi", 1), ("b2/pi", 1)]
    assert grouped(run("seed1/top0.5"), run("seed2/top0.5")) == [("top0.5", 2)]


def test_band_is_over_the_steps_that_all_seeds_have():
    first = made(series={"entropy": [1.0, 1.0, 1.0]})
    second = made(series={"entropy": [3.0, 3.0]})
    steps, means, halves = band(Arm("a", [first, second]), "entropy")
    assert (steps, means) == ([1, 2], [2.0, 2.0])
    assert halves == pytest.approx([12.7062, 12.7062], abs=1e-4)  # deviation sqrt(2), over sqrt(2)
    assert band(Arm("a", [first]), "entropy") == ([1, 2, 3], [1.0, 1.0, 1.0], None)
    assert band(Arm("a", [first, made(series={})]), "entropy") is None
    assert band(Arm("a", [first, made(series={"entropy": [1.0]}, steps=[9])]), "entropy") is None


def test_values_that_are_not_finite_are_left_out():
    assert finite(Series([1, 2, 3], [0.5, math.nan, math.inf])) == ([1], [0.5])
    assert finite(None) == ([], [])
