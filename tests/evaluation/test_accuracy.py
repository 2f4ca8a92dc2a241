from itertools import combinations
from math import comb
from statistics import fmean

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.accuracy import average, majority, solved


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
    correct = answers == 0
    assert majority(correct, answers, 4).tolist() == [1.0]
    # trios: 001, 002 are won; 012 twice is a tie of three
    np.testing.assert_allclose(majority(correct, answers, 3), (1 + 1 + 1 / 3 + 1 / 3) / 4, rtol=1e-12)
    # pairs: 00 is won, 12 lost, the four others are ties of a right and a wrong one
    np.testing.assert_allclose(majority(correct, answers, 2), (1 + 4 / 2) / 6, rtol=1e-12)
    np.testing.assert_allclose(majority(correct, answers, 1), 0.5, rtol=1e-12)


def test_tied_answers_have_the_same_chance():
    answers = np.array([[0, 0, 1, 1, 2, -1]])
    assert majority(answers == 0, answers, 6).tolist() == [0.5]


def test_samples_without_an_answer_do_not_vote():
    answers = np.array([[0, -1, -1, -1], [-1, -1, -1, -1]])
    correct = answers == 0
    assert majority(correct, answers, 4).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(majority(correct, answers, 2), [0.5, 0.0], rtol=1e-12)  # half of the pairs have a vote


@pytest.mark.parametrize("num_samples", [1, 2, 5, 8])
def test_vote_is_the_mean_over_all_subsets(num_samples):
    samples = drawn(num_problems=15, num_samples=num_samples, seed=num_samples)
    for k in range(1, num_samples + 1):
        pairs = zip(samples.correct.tolist(), samples.answers.tolist(), strict=True)
        expected = [voted(*problem, k) for problem in pairs]
        np.testing.assert_allclose(majority(samples.correct, samples.answers, k), expected, atol=1e-12)


def test_vote_where_the_verifier_contradicts_itself():
    samples = drawn(num_problems=15, num_samples=7)
    correct = np.random.default_rng(1).random((15, 7)) < 0.5
    for k in range(1, 8):
        expected = [voted(*problem, k) for problem in zip(correct.tolist(), samples.answers.tolist(), strict=True)]
        np.testing.assert_allclose(majority(correct, samples.answers, k), expected, atol=1e-12)


def test_vote_of_many_samples_agrees_with_random_subsets():
    random = np.random.default_rng(0)
    answers = random.choice([0, 1, 2, 3, -1], p=[0.3, 0.3, 0.2, 0.1, 0.1], size=1200)
    subsets = random.permuted(np.tile(answers, (4000, 1)), axis=1)[:, :32]
    numbers = (subsets[:, :, None] == np.arange(4)).sum(1)
    tied = numbers == numbers.max(1, keepdims=True)
    won = tied[:, 0] / tied.sum(1)
    found = majority((answers == 0)[None], answers[None], 32)[0]
    assert found == pytest.approx(won.mean(), abs=4 * won.std() / np.sqrt(4000))


def test_vote_of_two_answers_is_hypergeometric_for_every_k():
    right, wrong, blank = 20, 25, 19
    answers = np.repeat([[0, 1, -1]], [right, wrong, blank], axis=1)
    for k in range(1, 65):
        draws = [(i, j) for i in range(right + 1) for j in range(wrong + 1) if 0 <= k - i - j <= blank]
        ways = {(i, j): comb(right, i) * comb(wrong, j) * comb(blank, k - i - j) for i, j in draws}
        won = sum(n for (i, j), n in ways.items() if i > j) + sum(n for (i, j), n in ways.items() if i == j > 0) / 2
        assert majority(answers == 0, answers, k)[0] == pytest.approx(won / comb(64, k), abs=1e-11)


def test_all_correct_and_none():
    answers = np.zeros((2, 8), dtype=int)
    correct = np.array([[True] * 8, [False] * 8])
    for k in (1, 3, 8):
        np.testing.assert_allclose(majority(correct, answers, k), [1.0, 0.0], atol=1e-12)
        assert solved(correct, k).tolist() == [1.0, 0.0]


def test_names_of_answers_do_not_matter():
    samples = drawn()
    renamed = np.where(samples.answers < 0, -1, 7 - samples.answers)
    for k in (2, 8):
        np.testing.assert_allclose(
            majority(samples.correct, renamed, k), majority(samples.correct, samples.answers, k), rtol=1e-12
        )


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range_is_refused(k):
    samples = drawn(num_samples=4)
    with pytest.raises(ValueError, match=f"k must be between 1 and num_samples=4, got {k}"):
        solved(samples.correct, k)
    with pytest.raises(ValueError, match=f"k must be between 1 and num_samples=4, got {k}"):
        majority(samples.correct, samples.answers, k)
