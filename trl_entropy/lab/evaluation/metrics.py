"""
Metrics of several samples per problem: accuracy, diversity and calibration, with standard errors.

With K samples for each of P problems, `correct` is `(P, K)` bool and `answers` is `(P, K)` int: equal for equal
answers to a problem, -1 without an answer.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...measures import pass_at_k
from ..statistics import Mean, Statistic, once, ratio, resample, standard_error


VOTES = 1000  # number of random orders of a problem's samples that maj@k is averaged over
LONGEST = 4  # n-grams, as in BLEU-4
FLOOR = 0.1  # replaces a count of 0 in BLEU
BINS = 15  # of confidences


@dataclass(frozen=True)
class Samples:
    """
    K samples for each of P problems. Arrays are `(P, K)` unless another shape is given; no sample may be missing.

    Args:
        correct (`numpy.ndarray`):
            Bool.
        answers (`numpy.ndarray`):
            Int: the number of the answer's class within its problem. Answers that the verifier finds equal have equal
            numbers; -1 where no answer was found.
        lengths (`numpy.ndarray`):
            Int: number of tokens.
        logprobs (`numpy.ndarray`):
            In nats: the mean log-prob of the response's tokens, at temperature 1.
        entropies (`numpy.ndarray`):
            In nats per token: the mean over the response's tokens, at temperature 1.
        prompt_entropies (`numpy.ndarray`):
            `(P,)`, in nats per token: the mean over the prompt's tokens, at temperature 1.
        texts (`list[list[str]]`):
            The responses.
    """

    correct: np.ndarray
    answers: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    entropies: np.ndarray
    prompt_entropies: np.ndarray
    texts: list[list[str]]


# Accuracy


def average(correct: np.ndarray) -> np.ndarray:
    """Share of correct samples of each problem, `(P, K)` to `(P,)`: avg@K."""
    return correct.mean(1)


def solved(correct: np.ndarray, k: int) -> np.ndarray:
    """
    Unbiased pass@k of each problem, `(P,)`, from `(P, K)` bool.

    Raises `ValueError` unless `1 <= k <= K`.

    Reference: Chen et al., [Evaluating Large Language Models Trained on
    Code](https://huggingface.co/papers/2107.03374), 2021.
    """
    size = correct.shape[1]
    return np.array([pass_at_k(size, number, k) for number in correct.sum(1).tolist()])


def majority(correct: np.ndarray, answers: np.ndarray, ks: Sequence[int], seed: int = 0) -> np.ndarray:
    """
    maj@k of each problem, `(len(ks), P)`: how often the most frequent answer among `k` of its samples is correct.

    It is the mean over the first `k` samples in [`VOTES`] random orders. Its standard error is at most
    `0.5 / sqrt(VOTES)` = 0.016 for a problem and `0.016 / sqrt(P)` for the mean over problems; for `k` = 1 and K it is
    exact. Tied answers have the same chance. Samples without an answer do not vote; without any vote the result is
    wrong. If the verifier contradicts itself on an answer, the answer counts as the share of its samples that are
    correct.

    `seed` is the seed of the orders. Raises `ValueError` unless `1 <= k <= K` for all of `ks`.

    Reference: Wang et al., [Self-Consistency Improves Chain of Thought Reasoning in Language
    Models](https://huggingface.co/papers/2203.11171), 2022.
    """
    size, rng = correct.shape[1], np.random.default_rng(seed)
    for k in ks:
        if not 1 <= k <= size:
            raise ValueError(f"k must be between 1 and num_samples={size}, got {k}")
    won = {k: [] for k in ks}
    for right, given in zip(correct, answers, strict=True):
        kinds, numbers = np.unique(given, return_inverse=True)
        shares = np.array([right[given == kind].mean() * (kind >= 0) for kind in kinds])
        votes = np.zeros((VOTES, len(kinds)))
        for k, kind in enumerate(rng.permuted(np.tile(numbers, (VOTES, 1)), axis=1).T, start=1):
            votes[np.arange(VOTES), kind] += kinds[kind] >= 0
            if k in ks:
                tied = (votes == votes.max(1, keepdims=True)) & (votes > 0)
                found = shares[numbers] if k == 1 else tied @ shares / np.maximum(tied.sum(1), 1)
                won[k].append(found.mean())
    return np.array([won[k] for k in ks])


# Diversity


def distinct_answers(answers: np.ndarray) -> np.ndarray:
    """Number of different answers per problem, `(P,)`; a missing answer does not count."""
    return np.array([len(np.unique(row[row >= 0])) for row in answers], dtype=float)


def vote_entropy(answers: np.ndarray) -> np.ndarray:
    r"""
    Entropy of each problem's answers, `(P,)`, in nats; NaN if none of its samples has an answer.

    $$
    -\sum_a p_a \log p_a
    $$

    with \\( p_a \\) the share of answer \\( a \\) among the samples that have an answer. It is at most the logarithm
    of their number, so only compare it at equal numbers of samples.
    """
    return np.array([_entropy(np.unique(row[row >= 0], return_counts=True)[1]) for row in answers])


def _entropy(counts: np.ndarray) -> float:
    if not len(counts):
        return np.nan
    shares = counts / counts.sum()
    return float((shares * np.log(1 / shares)).sum())


def tokenize(text: str) -> list[str]:
    r"""Words, numbers and single signs, which are the units of n-grams here (ours): `x+1 = 2` has five."""
    return re.findall(r"\w+|[^\w\s]", text)


def ngrams(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For n = 1 to 4: a number per n-gram of the texts, equal for equal n-grams, and the text that it is in."""
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
    Number of distinct n-grams divided by that of all n-grams, for n = 1 to 4, over all responses to one problem; NaN
    if they have none.

    It falls with the number and the length of the responses, so only compare it at equal `num_samples`.

    Reference: Li et al., [A Diversity-Promoting Objective Function for Neural Conversation
    Models](https://huggingface.co/papers/1510.03055), 2016.
    """
    return [len(np.unique(grams)) / len(grams) if len(grams) else np.nan for grams, _ in ngrams(texts)]


def self_bleu(texts: Sequence[str]) -> float:
    r"""
    Mean BLEU-4 of each response to a problem against all others, from 0 (nothing shared) to 1 (all alike).

    $$
    \min(1, e^{1 - r/c}) \; \exp \frac{1}{N} \sum_{n=1}^N \log \frac{m_n}{t_n}
    $$

    with \\( t_n \\) the number of n-grams in the response and \\( m_n \\) the number of those that another response
    has too, each counted at most as often as in the response that has most of it. \\( c \\) is the length of the
    response, and \\( r \\) the nearest length among the others (the shorter if two are equally near). \\( N = 4 \\),
    or the length of a shorter response. A count \\( m_n = 0 \\) is replaced by 0.1, and a response that shares no word
    gets 0. This is sacrebleu's sentence BLEU with `smooth_method="floor"` and `effective_order=True`. Ours: an empty
    response gets 1 if another one is empty too.

    NaN for a single response. All responses are used. The time only grows with the number of n-grams, since the
    largest count among the others is the overall largest, or the second largest if the largest is the response's own.

    Reference: Zhu et al., [Texygen: A Benchmarking Platform for Text Generation
    Models](https://huggingface.co/papers/1802.01886), 2018.
    """
    size = len(texts)
    if size == 1:
        return np.nan
    matched, total = np.zeros((LONGEST, size)), np.zeros((LONGEST, size))
    for n, (grams, owners) in enumerate(ngrams(texts)):
        keys, counts = np.unique(grams * size + owners, return_counts=True)
        total[n] = np.bincount(keys % size, counts, minlength=size)
        matched[n] = np.bincount(keys % size, np.minimum(counts, _most_of_others(keys // size, counts)), size)
    precisions = np.maximum(matched, FLOOR) / np.maximum(total, 1)
    orders = (total > 0).sum(0)
    logs = np.where(total > 0, np.log(precisions), 0.0).sum(0) / np.maximum(orders, 1)
    scores = np.where(matched[0] > 0, _brevity(total[0]) * np.exp(logs), 0.0)
    empty = orders == 0
    scores[empty] = float(empty.sum() > 1)
    return float(scores.mean())


def _most_of_others(grams: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each pair of n-gram and text, the n-gram's largest count in another text."""
    order = np.lexsort((-counts, grams))
    ranked, sizes = grams[order], counts[order]
    first = np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)]
    largest = sizes[first][np.cumsum(first) - 1]
    following = np.append(np.where(first[1:], 0, sizes[1:]), 0)[: len(ranked)]
    others = np.empty_like(counts)
    others[order] = np.where(first, following, largest)
    return others


def _brevity(lengths: np.ndarray) -> np.ndarray:
    """The brevity penalty of each text, with the others as references."""
    distances = 2 * np.abs(lengths[:, None] - lengths) + (lengths > lengths[:, None])
    np.fill_diagonal(distances, np.inf)
    nearest = lengths[distances.argmin(1)]
    return np.exp(np.minimum(0.0, 1 - nearest / np.maximum(lengths, 1)))


# Confidence and calibration


def logprob_confidence(logprobs: np.ndarray) -> np.ndarray:
    """
    The geometric mean of the probabilities of a response's tokens, `exp(logprobs)`, `(P, K)`.

    A log-prob that rounding put above 0 counts as 0.
    """
    return np.exp(np.minimum(logprobs, 0.0))


def vote_confidence(answers: np.ndarray) -> np.ndarray:
    """Share of a problem's K samples that have this sample's answer, `(P, K)`; 0 for a sample without an answer."""
    return ((answers[:, :, None] == answers[:, None, :]) & (answers >= 0)[:, :, None]).mean(2)


def brier(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """
    Mean squared difference between `confidence` and `correct`, both `(P, K)`, per problem: `(P,)`.

    Reference: Brier, [Verification of Forecasts Expressed in Terms of
    Probability](https://doi.org/10.1175/1520-0493%281950%29078%3C0001:VOFEIT%3E2.0.CO;2), 1950.
    """
    return ((confidence - correct) ** 2).mean(1)


class Bin(NamedTuple):
    """
    One bar of a reliability diagram.

    Args:
        low, high (`float`):
            The range of its confidences: above `low`, up to `high`; 0 is in the first bin.
        confidence (`float`):
            Their mean; NaN in an empty bin.
        accuracy (`float`):
            Share of correct samples; NaN in an empty bin.
        count (`int`):
            Samples.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The reliability of samples, `(P, K)` or flat, in `bins` bins of equal width."""
    count, sure, right = _in_bins(confidence.reshape(1, -1), correct.reshape(1, -1), bins)[:, 0]
    means = zip(ratio(sure, count).tolist(), ratio(right, count).tolist(), count.tolist(), strict=True)
    return [Bin(b / bins, (b + 1) / bins, *mean, int(number)) for b, (*mean, number) in enumerate(means)]


def _in_bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> np.ndarray:
    """Number of samples, sum of confidences and number of correct samples, per problem and bin: `(3, P, bins)`."""
    place = np.searchsorted(np.arange(1, bins) / bins, confidence)
    inside = place[..., None] == np.arange(bins)
    return np.stack([inside.sum(1), (inside * confidence[..., None]).sum(1), (inside & correct[..., None]).sum(1)])


class ECE:
    r"""
    Expected calibration error over all samples.

    $$
    \sum_b \frac{n_b}{n} \, | \text{accuracy}_b - \text{confidence}_b |
    $$

    with bins of equal width, closed above; `confidence` is `(P, K)`.

    Reference: Guo et al., [On Calibration of Modern Neural Networks](https://huggingface.co/papers/1706.04599), 2017.
    """

    def __init__(self, confidence: np.ndarray, correct: np.ndarray, bins: int = BINS):
        self.count, self.sure, self.right = _in_bins(confidence, correct, bins)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The error `(R,)`, given `(R, P)` weights of problems."""
        gaps = np.abs(weights @ self.right - weights @ self.sure).sum(1)
        return ratio(gaps, (weights @ self.count).sum(1))


class AUROC:
    """
    Share of the pairs of a correct and a wrong sample, over all problems, in which the correct one has the higher
    confidence.

    Equal confidences count half; `confidence` is `(P, K)`. NaN if all samples are correct, or none is.

    Reference: Hanley and McNeil, [The meaning and use of the area under a receiver operating characteristic (ROC)
    curve](https://doi.org/10.1148/radiology.143.1.7063747), 1982.
    """

    def __init__(self, confidence: np.ndarray, correct: np.ndarray):
        order = confidence.argsort(axis=None, kind="stable")
        ranked = confidence.ravel()[order]
        self.problems = order // confidence.shape[1]
        self.right = correct.ravel()[order]
        self.starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The area `(R,)`, given `(R, P)` weights of problems."""
        return np.array([self._area(row[self.problems]) for row in weights])

    def _area(self, weights: np.ndarray) -> float:
        right = np.add.reduceat(weights * self.right, self.starts)
        wrong = np.add.reduceat(weights * ~self.right, self.starts)
        won = (right * (wrong.cumsum() - wrong / 2)).sum()
        pairs = right.sum() * wrong.sum()
        return won / pairs if pairs else np.nan


# All metrics


class Score(NamedTuple):
    """
    A metric over all problems.

    Args:
        value (`float`):
            NaN if the samples do not define it.
        stderr (`float`):
            Its standard error from a bootstrap over problems; NaN for a single problem.
    """

    value: float
    stderr: float


def scores(
    samples: Samples, ks: Sequence[int] | None = None, seed: int = 0, resamples: int = 1000
) -> dict[str, Score]:
    """
    All metrics, in the order of a table.

    Args:
        samples ([`Samples`]):
            K samples for each of P problems.
        ks (`Sequence[int]`, *optional*):
            The k of pass@k and maj@k; by default 1, 2, 4, ... and K.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.
        resamples (`int`, *optional*, defaults to `1000`):
            Number of resamples in the bootstrap.

    Raises `ValueError` for arrays of different shapes, no samples, log-probs or entropies that are not finite, a `k`
    outside 1 to K, or fewer than 2 resamples.
    """
    table, number = metrics(samples, ks), len(samples.correct)
    resampled = resample(number, resamples, seed)
    values = {name: float(metric(once(number))[0]) for name, metric in table.items()}
    errors = {name: standard_error(metric(resampled)) if number > 1 else np.nan for name, metric in table.items()}
    return {name: Score(value, errors[name]) for name, value in values.items()}


def powers_of_two(num_samples: int) -> list[int]:
    """1, 2, 4, ... below `num_samples`, and `num_samples`."""
    return [*(2**i for i in range((num_samples - 1).bit_length())), num_samples]


def at_powers_of_two(table: Mapping[str, Score], num_samples: int) -> dict[str, Score]:
    """The scores without pass@k and maj@k of the other k."""
    kept = {str(k) for k in powers_of_two(num_samples)}
    return {name: score for name, score in table.items() if "@" not in name or name.partition("@")[2] in kept}


def metrics(samples: Samples, ks: Sequence[int] | None = None) -> dict[str, Statistic]:
    """The metrics as functions of the problems' weights, by name; arguments and errors as for `scores`."""
    _check(samples)
    correct, answers, texts = samples.correct, samples.answers, samples.texts
    ks = powers_of_two(correct.shape[1]) if ks is None else ks
    of_ngrams = np.array([distinct(problem) for problem in texts]).T
    table: dict[str, Statistic] = {
        f"avg@{correct.shape[1]}": Mean(average(correct)),
        **{f"pass@{k}": Mean(solved(correct, k)) for k in ks},
        **{f"maj@{k}": Mean(values) for k, values in zip(ks, majority(correct, answers, ks), strict=True)},
        "distinct_answers": Mean(distinct_answers(answers)),
        "vote_entropy": Mean(vote_entropy(answers)),
        **{f"distinct_{n}": Mean(values) for n, values in enumerate(of_ngrams, start=1)},
        "self_bleu": Mean(np.array([self_bleu(problem) for problem in texts])),
        "response_length": Mean(samples.lengths.mean(1)),
        "response_entropy": Mean(samples.entropies.mean(1)),
        "prompt_entropy": Mean(samples.prompt_entropies),
    }
    confidences = {"logprob": logprob_confidence(samples.logprobs), "vote": vote_confidence(answers)}
    for name, confidence in confidences.items():
        table[f"ece_{name}"] = ECE(confidence, correct)
        table[f"brier_{name}"] = Mean(brier(confidence, correct))
        table[f"auroc_{name}"] = AUROC(confidence, correct)
    return table


def _check(samples: Samples) -> None:
    shape = samples.correct.shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"correct must have the shape (problems, samples) and hold one at least, got {shape}")
    for name in ("answers", "lengths", "logprobs", "entropies"):
        if getattr(samples, name).shape != shape:
            raise ValueError(f"{name} must have the shape of correct, {shape}, got {getattr(samples, name).shape}")
    if samples.prompt_entropies.shape != shape[:1]:
        raise ValueError(f"prompt_entropies must have the shape {shape[:1]}, got {samples.prompt_entropies.shape}")
    if [len(problem) for problem in samples.texts] != [shape[1]] * shape[0]:
        raise ValueError(f"texts must hold {shape[0]} lists of {shape[1]} responses")
    if samples.correct.dtype != bool:
        raise ValueError(f"correct must be an array of bool, got {samples.correct.dtype}")
    for name in ("logprobs", "entropies"):
        if not np.isfinite(getattr(samples, name)).all():
            raise ValueError(f"{name} must be finite; leave no response without a token")
