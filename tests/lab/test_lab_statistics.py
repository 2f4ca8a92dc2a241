import math

import pytest

from trl_entropy.lab.statistics import half_interval


# Student's t, 0.975, from printed tables
@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (9, 2.262), (120, 1.980)])
def test_interval_is_students(freedom, quantile):
    values = [float(value % 2) for value in range(freedom + 1)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / freedom)
    assert half_interval(values) / (deviation / math.sqrt(len(values))) == pytest.approx(quantile, abs=5e-4)


def test_one_value_says_nothing():
    assert half_interval([5.0]) == math.inf
