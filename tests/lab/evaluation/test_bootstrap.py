import math

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import AUROC, ECE, logprob_confidence
from trl_entropy.lab.statistics import Mean, interval, once, resample, standard_error


def test_a_resample_has_as_many_problems_as_there_are():
    weights = resample(7, resamples=50)
    assert weights.shape == (50, 7)
    assert (weights.sum(1) == 7).all()
    assert (weights == resample(7, resamples=50)).all()
    assert (weights != resample(7, resamples=50, seed=1)).any()


def test_standard_error_of_two_problems():
    # the mean of 0 and 1 chosen twice is 0, 1/2, 1/2, 1: variance 1/8
    found = standard_error(Mean(np.array([0.0, 1.0]))(resample(2, resamples=20_000)))
    assert found == pytest.approx(math.sqrt(1 / 8), rel=0.02)  # 4 standard errors of it are 0.014


def test_standard_error_of_a_mean_is_the_known_one():
    values = np.random.default_rng(0).random(40)
    found = standard_error(Mean(values)(resample(40, resamples=20_000)))
    assert found == pytest.approx(values.std() / math.sqrt(40), rel=0.02)


def test_interval_of_normal_means():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(Mean(values)(resample(400, resamples=20_000)))
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_problems_without_a_value_are_left_out():
    mean = Mean(np.array([1.0, np.nan, 3.0]))
    assert mean(once(3)).tolist() == [2.0]
    assert mean(np.array([[3.0, 1.0, 1.0]])).tolist() == [1.5]
    assert np.isnan(mean(np.array([[0.0, 3.0, 0.0]]))).all()


def test_resamples_without_a_value_are_left_out():
    values = np.array([1.0, np.nan, 3.0])
    assert standard_error(values) == pytest.approx(math.sqrt(2))
    assert interval(values) == pytest.approx((1.05, 2.95))
    assert math.isnan(standard_error(values[:2]))
    assert np.isnan(interval(values[1:2])).all()


def test_a_weight_counts_the_problem_that_often():
    samples = drawn()
    confidence = logprob_confidence(samples.logprobs)
    for row in resample(6, resamples=20):
        again = np.repeat(np.arange(6), row.astype(int))
        for statistic in (AUROC, ECE):
            weighted = statistic(confidence, samples.correct)(row[None])
            repeated = statistic(confidence[again], samples.correct[again])(once(6))
            np.testing.assert_allclose(weighted, repeated, rtol=1e-12)
        weighted = Mean(samples.prompt_entropies)(row[None])
        np.testing.assert_allclose(weighted, [samples.prompt_entropies[again].mean()], rtol=1e-12)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples must be at least 2, got 1"):
        resample(5, resamples=1)
