"""Accuracy of every problem: the mean, pass@k, and the vote of k samples."""

import math
from collections import Counter
from functools import lru_cache
from statistics import fmean

import numpy as np

from ...measures import pass_at_k


LIKELY = 1e-4  # probability of drawing k samples below which rounding would show: 1e-16 / 1e-4 is left


def average(correct: np.ndarray) -> np.ndarray:
    """Share of correct samples of each problem, `(P, K)` to `(P,)`: avg@K."""
    return correct.mean(1)


def solved(correct: np.ndarray, k: int) -> np.ndarray:
    """
    Unbiased pass@k of each problem, `(P,)`.

    Args:
        correct (`numpy.ndarray`):
            `(P, K)` bool.
        k (`int`):
            At most K.

    Raises `ValueError` unless `1 <= k <= K`.

    Reference: Chen et al., [Evaluating Large Language Models Trained on
    Code](https://huggingface.co/papers/2107.03374), 2021.
    """
    size = correct.shape[1]
    numbers = correct.sum(1)
    by_number = {number: pass_at_k(size, number, k) for number in set(numbers.tolist())}
    return np.array([by_number[number] for number in numbers.tolist()])


def majority(correct: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    r"""
    maj@k of each problem, `(P,)`: how often the most frequent answer of `k` of its samples is correct.

    $$
    \binom{K}{k}^{-1} \sum_{S : |S| = k} \frac{1}{|T_S|} \sum_{a \in T_S} q_a
    $$

    with \\( T_S \\) the most frequent answers in \\( S \\), one or tied, and \\( q_a \\) the share of `correct` among
    the samples with answer \\( a \\), 0 or 1 unless the verifier contradicts itself. The sum over all subsets is
    exact. Samples without an answer do not vote, and a vote without votes is wrong.

    Args:
        correct (`numpy.ndarray`):
            `(P, K)` bool.
        answers (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers of a problem, -1 for none.
        k (`int`):
            At most K.

    Raises `ValueError` unless `1 <= k <= K`.

    Reference: Wang et al., [Self-Consistency Improves Chain of Thought Reasoning in Language
    Models](https://huggingface.co/papers/2203.11171), 2022.
    """
    size = correct.shape[1]
    if not 1 <= k <= size:
        raise ValueError(f"k must be between 1 and num_samples={size}, got {k}")
    return np.array([_expected(_votes(*problem), size, k) for problem in zip(correct, answers, strict=True)])


def _votes(correct: np.ndarray, answers: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Number of samples and share of correct ones of every answer, in an order that does not depend on names."""
    numbers = Counter(answers[answers >= 0].tolist())
    return tuple(sorted((number, float(correct[answers == answer].mean())) for answer, number in numbers.items()))


def _expected(votes: tuple[tuple[int, float], ...], size: int, k: int) -> float:
    """The mean over all subsets of `k` of `size` samples of the correctness of the vote."""
    blank = size - sum(number for number, _ in votes)
    shares = {share for _, share in votes} | ({0.0} if blank else set())
    if len(shares) == 1:  # whatever wins
        return shares.pop()
    if k == size:
        most = max(number for number, _ in votes)
        return fmean(share for number, share in votes if number == most)
    low, high, centre = next(window for window in _windows(size) if k <= window[1])
    return float(_in_window(votes, size, low, high, centre)[k - low])


@lru_cache(maxsize=64)
def _windows(size: int) -> list[tuple[int, int, int]]:
    """The first and last k, and one between, whose probability k / size makes all of them likely enough."""
    windows, low = [], 1
    while low < size:
        centre = max(k for k in range(low, size) if _binomial(size, k / size)[low] > LIKELY)
        high = max(k for k in range(centre, size) if _binomial(size, centre / size)[k] > LIKELY)
        windows.append((low, high, centre))
        low = high + 1
    return windows


@lru_cache(maxsize=4096)  # problems share patterns: all samples agree, all but one
def _in_window(votes: tuple[tuple[int, float], ...], size: int, low: int, high: int, centre: int) -> np.ndarray:
    """
    The same for k from `low` to `high`.

    Every sample is drawn with probability centre / size, given that k are drawn: then answers are independent, and
    the distribution of a sum is a product of generating functions, here on the roots of unity.
    """
    p = centre / size
    most = max(number for number, _ in votes)
    roots = np.exp(-2j * np.pi / (size + 1) * np.outer(np.arange(size + 1), np.arange((size + 3) // 2)))
    exactly = {number: _binomial(number, p)[:, None] * roots[: number + 1] for number, _ in votes}
    at_most = {number: terms.cumsum(0) for number, terms in exactly.items()}
    drawn = 0  # weight of the correct among the tied
    for top in range(1, min(high, most) + 1):
        able = [vote for vote in votes if vote[0] >= top]
        rest = size - sum(number for number, _ in able)
        # by number of tied answers: probability of the draw, and the same times the sum of their correctness
        mass = np.zeros((min(len(able), high // top) + 1, roots.shape[1]), dtype=complex)
        mass[0] = _binomial(rest, p) @ roots[: rest + 1]
        right = np.zeros_like(mass)
        for number, share in able:
            equal, below = exactly[number][top], at_most[number][top - 1]
            tied, tied_right = equal * mass[:-1], equal * (right + share * mass)[:-1]
            mass, right = below * mass, below * right
            mass[1:] += tied
            right[1:] += tied_right
        drawn += (right[1:] / np.arange(1, len(right))[:, None]).sum(0)
    within = slice(low, high + 1)
    return np.clip(np.fft.irfft(drawn, size + 1)[within] / _binomial(size, p)[within], 0.0, 1.0)


@lru_cache(maxsize=4096)
def _binomial(number: int, p: float) -> np.ndarray:
    logs = np.array([math.lgamma(count + 1) for count in range(number + 1)])
    counts = np.arange(number + 1)
    return np.exp(logs[-1] - logs - logs[::-1] + counts * math.log(p) + counts[::-1] * math.log1p(-p))
