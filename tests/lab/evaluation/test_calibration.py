import math

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import AUROC, ECE, brier, logprob_confidence, reliability, vote_confidence
from trl_entropy.lab.statistics import once


def test_confidence_of_tokens_is_their_geometric_mean():
    # two tokens of probabilities 1/2 and 1/8
    logprobs = np.array([[(math.log(1 / 2) + math.log(1 / 8)) / 2, 0.0, 1e-7]])
    np.testing.assert_allclose(logprob_confidence(logprobs), [[1 / 4, 1.0, 1.0]], rtol=1e-12)
    assert logprob_confidence(logprobs).max() == 1.0


def test_confidence_of_votes_is_the_share_of_the_own_answer():
    answers = np.array([[0, 0, 1, -1], [2, 2, 2, 2], [-1, -1, -1, -1]])
    expected = [[0.5, 0.5, 0.25, 0.0], [1.0] * 4, [0.0] * 4]
    assert vote_confidence(answers).tolist() == expected


def test_reliability_by_hand():
    confidence = np.array([0.0, 0.5, 0.6, 1.0])
    table = reliability(confidence, np.array([False, True, False, True]), bins=2)
    assert table[0] == (0.0, 0.5, 0.25, 0.5, 2)  # 0 is in the first bin, and a bin is closed above
    assert table[1] == pytest.approx((0.5, 1.0, 0.8, 0.5, 2), rel=1e-12)


def test_empty_bin_has_no_means():
    table = reliability(np.array([0.9]), np.array([True]), bins=10)
    assert [bar.count for bar in table] == [0] * 8 + [1, 0]
    assert math.isnan(table[0].confidence)
    assert math.isnan(table[0].accuracy)


def test_shares_of_votes_fall_on_the_edges_they_equal():
    table = reliability(np.arange(16) / 15, np.ones(16, dtype=bool), bins=15)
    assert [bar.count for bar in table] == [2] + [1] * 14


def test_ece_by_hand():
    confidence = np.array([[0.1, 0.3], [0.8, 1.0]])
    correct = np.array([[False, True], [True, True]])
    # two bins of two: |0.5 - 0.2| and |1 - 0.9|, half of the samples each
    assert ECE(confidence, correct, bins=2)(once(2)) == pytest.approx([0.5 * 0.3 + 0.5 * 0.1], rel=1e-12)


def test_ece_is_that_of_the_reliability_table():
    samples = drawn(num_problems=30)
    for confidence in (logprob_confidence(samples.logprobs), vote_confidence(samples.answers)):
        table = [bar for bar in reliability(confidence, samples.correct) if bar.count]
        expected = sum(bar.count * abs(bar.accuracy - bar.confidence) for bar in table) / samples.correct.size
        assert ECE(confidence, samples.correct)(once(30)) == pytest.approx([expected], rel=1e-12)


def test_ece_of_one_bin_is_the_difference_of_the_means():
    samples = drawn()
    confidence = logprob_confidence(samples.logprobs)
    expected = abs(confidence.mean() - samples.correct.mean())
    assert ECE(confidence, samples.correct, bins=1)(once(6)) == pytest.approx([expected], rel=1e-12)


def test_brier_by_hand():
    scores = brier(np.array([[1.0, 0.5], [0.0, 0.2]]), np.array([[True, True], [True, False]]))
    np.testing.assert_allclose(scores, [0.125, 0.52], rtol=1e-12)


def auroc_of_pairs(confidence: np.ndarray, correct: np.ndarray) -> float:
    right, wrong = confidence[correct], confidence[~correct]
    return float(np.mean([0.5 * (a == b) + (a > b) for a in right for b in wrong]))


def test_auroc_by_hand():
    confidence = np.array([[0.9, 0.4], [0.4, 0.1]])
    correct = np.array([[True, True], [False, False]])
    # four pairs: one tie, three won
    assert AUROC(confidence, correct)(once(2)).tolist() == [0.875]
    assert AUROC(confidence, ~correct)(once(2)).tolist() == [0.125]


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs(seed):
    samples = drawn(seed=seed)
    for confidence in (logprob_confidence(samples.logprobs), vote_confidence(samples.answers)):
        expected = auroc_of_pairs(confidence, samples.correct)
        assert AUROC(confidence, samples.correct)(once(6)) == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("correct", [True, False])
def test_auroc_is_undefined_if_all_samples_are_correct_or_none(correct):
    confidence = np.array([[0.1, 0.9]])
    assert np.isnan(AUROC(confidence, np.full((1, 2), correct))(once(1))).all()
