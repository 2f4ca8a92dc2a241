from itertools import combinations
from math import comb
from statistics import fmean

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import VOTES, average, majority, solved


ERROR = 0.5 / np.sqrt(VOTES)  # standard error of a problem's vote, at most


def voted(correct: list[bool], answers: list[int], k: int) -> float:
    """maj@k by trying all subsets; the correctness of an answer is the share of its samples that are correct."""
    results = []
    for chosen in combinations(answers, k):
        votes = [answer for answer in chosen if answer >= 0]
        most = max(map(votes.count, votes), default=0)
        tied = {answer for answer in votes if votes.count(answer) == most}
        shares = [fmean(c for c, a in zip(correct, answers, strict=True) if a == answer) for answer in tied]
        results.append(fmean(shares) if shares else 0.0)
    return fmean(results)


def test_one_correct_of_four_is_pass_at_4_of_one():
    correct = np.array([[False, False, True, False]])
    assert solved(correct, 4).tolist() == [1.0]
    assert solved(correct, 1).tolist() == average(correct).tolist() == [0.25]
    assert solved(correct, 2).tolist() == [0.5]  # three of the six pairs


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample():
    correct = drawn(num_problems=20, num_samples=6).correct
    for k in range(1, 7):
        by_hand = [fmean(map(any, combinations(row, k))) for row in correct.tolist()]
        np.testing.assert_allclose(solved(correct, k), by_hand, atol=1e-12)


def test_vote_by_hand():
    answers = np.array([[0, 0, 1, 2]])
    # one sample: half are right. Pairs: 00 is won, 12 lost, the four others are ties of a right and a wrong one.
    # Trios: 001, 002 are won; 012 twice is a tie of three
    by_hand = [[1 / 2], [(1 + 4 / 2) / 6], [(1 + 1 + 1 / 3 + 1 / 3) / 4], [1.0]]
    found = majority(answers == 0, answers, [1, 2, 3, 4])
    np.testing.assert_allclose(found, by_hand, atol=4 * ERROR)
    assert found[[0, 3]].tolist() == [[0.5], [1.0]]  # exact


def test_tied_answers_have_the_same_chance():
    answers = np.array([[0, 0, 1, 1, 2, -1]])
    assert majority(answers == 0, answers, [6]).tolist() == [[0.5]]


def test_samples_without_an_answer_do_not_vote():
    answers = np.array([[0, -1, -1, -1], [-1, -1, -1, -1]])
    pairs, all_four = majority(answers == 0, answers, [2, 4])
    assert all_four.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(pairs, [0.5, 0.0], atol=4 * ERROR)  # half of the pairs have a vote


@pytest.mark.parametrize("contradicts", [False, True])
@pytest.mark.parametrize("num_samples", [1, 2, 5, 8])
def test_vote_is_the_mean_over_all_subsets(num_samples, contradicts):
    """Also where the verifier contradicts itself: answers that it finds equal are correct or not."""
    samples = drawn(num_problems=15, num_samples=num_samples, seed=num_samples)
    other = np.random.default_rng(1).random(samples.correct.shape) < 0.5
    correct = other & (samples.answers >= 0) if contradicts else samples.correct
    ks = range(1, num_samples + 1)
    problems = list(zip(correct.tolist(), samples.answers.tolist(), strict=True))
    expected = np.array([[voted(*problem, k) for problem in problems] for k in ks])
    found = majority(correct, samples.answers, ks)
    np.testing.assert_allclose(found, expected, atol=4 * ERROR)
    np.testing.assert_allclose(found.mean(1), expected.mean(1), atol=4 * ERROR / np.sqrt(15))
    np.testing.assert_allclose(found[[0, -1]], expected[[0, -1]], atol=1e-12)


def test_vote_of_many_samples_is_hypergeometric():
    right, wrong, blank = 20, 25, 19
    answers = np.repeat([[0, 1, -1]], [right, wrong, blank], axis=1)
    ks = [1, 2, 8, 31, 63, 64]
    for k, found in zip(ks, majority(answers == 0, answers, ks)[:, 0], strict=True):
        chosen = [(i, j) for i in range(right + 1) for j in range(wrong + 1) if 0 <= k - i - j <= blank]
        ways = {(i, j): comb(right, i) * comb(wrong, j) * comb(blank, k - i - j) for i, j in chosen}
        won = sum(n for (i, j), n in ways.items() if i > j) + sum(n for (i, j), n in ways.items() if i == j > 0) / 2
        assert found == pytest.approx(won / comb(64, k), abs=4 * ERROR)


def test_all_correct_and_none():
    answers = np.zeros((2, 8), dtype=int)
    correct = np.array([[True] * 8, [False] * 8])
    assert majority(correct, answers, [1, 3, 8]).tolist() == [[1.0, 0.0]] * 3
    for k in (1, 3, 8):
        assert solved(correct, k).tolist() == [1.0, 0.0]


def test_names_of_answers_do_not_matter():
    samples = drawn()
    renamed = np.where(samples.answers < 0, -1, 7 - samples.answers)
    found, expected = (majority(samples.correct, names, [2, 8]) for names in (renamed, samples.answers))
    np.testing.assert_allclose(found[0], expected[0], atol=6 * ERROR)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range_is_refused(k):
    samples = drawn(num_samples=4)
    with pytest.raises(ValueError, match=f"k must be between 1 and num_samples=4, got {k}"):
        solved(samples.correct, k)
    with pytest.raises(ValueError, match=f"k must be between 1 and num_samples=4, got {k}"):
        majority(samples.correct, samples.answers, [k])
