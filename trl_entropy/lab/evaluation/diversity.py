"""How much the samples of a problem differ: in their answers and in their n-grams."""

import re
from collections.abc import Iterator, Sequence

import numpy as np


LONGEST = 4  # n-grams, as in BLEU-4


def distinct_answers(answers: np.ndarray) -> np.ndarray:
    """
    Number of different answers of each problem, `(P,)`.

    Args:
        answers (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers of a problem, -1 for none, which does not count.
    """
    return np.array([len(np.unique(row[row >= 0])) for row in answers], dtype=float)


def vote_entropy(answers: np.ndarray) -> np.ndarray:
    r"""
    Entropy of the answers of each problem, `(P,)`, in nats; NaN where none of its samples has an answer.

    $$
    -\sum_a p_a \log p_a
    $$

    with \\( p_a \\) the share of answer \\( a \\) among the samples that have one. At most the logarithm of their
    number, so it is comparable between equal numbers of samples only.

    Args:
        answers (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers of a problem, -1 for none.
    """
    return np.array([_entropy(np.unique(row[row >= 0], return_counts=True)[1]) for row in answers])


def _entropy(counts: np.ndarray) -> float:
    if not len(counts):
        return np.nan
    shares = counts / counts.sum()
    return float((shares * np.log(1 / shares)).sum())


def tokenize(text: str) -> list[str]:
    r"""Words, numbers and single signs, the units of n-grams here (ours): `x+1 = 2` has five."""
    return re.findall(r"\w+|[^\w\s]", text)


def ngrams(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    For n = 1 to 4, a number for every n-gram of the texts, equal for equal ones, and which text it stands in.

    Args:
        texts (`Sequence[str]`):
            The responses to one problem.
    """
    words = [tokenize(text) for text in texts]
    numbers: dict[str, int] = {}
    tokens = np.array([numbers.setdefault(word, len(numbers)) for text in words for word in text], dtype=np.int64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in words])
    grams = tokens
    for n in range(1, LONGEST + 1):
        if n > 1:
            ends = tokens[n - 1 :]
            grams = np.unique(grams[: len(ends)] * len(numbers) + ends, return_inverse=True)[1]
        inside = owners[: len(grams)] == owners[n - 1 :]
        yield grams[inside], owners[: len(grams)][inside]


def distinct(texts: Sequence[str]) -> list[float]:
    """
    Distinct n-grams divided by n-grams, for n = 1 to 4, over all responses to one problem; NaN if they have none.

    Falls with the number and the length of the responses, so compare it at equal `num_samples`.

    Reference: Li et al., [A Diversity-Promoting Objective Function for Neural Conversation
    Models](https://huggingface.co/papers/1510.03055), 2016.
    """
    return [len(np.unique(grams)) / len(grams) if len(grams) else np.nan for grams, _ in ngrams(texts)]
