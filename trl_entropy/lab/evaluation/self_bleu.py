"""Self-BLEU: how much the responses to a problem repeat each other."""

from collections.abc import Sequence

import numpy as np

from .diversity import LONGEST, ngrams


FLOOR = 0.1


def self_bleu(texts: Sequence[str]) -> float:
    r"""
    Mean over the responses to one problem of BLEU-4 against all others, from 0 (nothing shared) to 1 (all alike).

    $$
    \min(1, e^{1 - r/c}) \; \exp \frac{1}{N} \sum_{n=1}^N \log \frac{m_n}{t_n}
    $$

    with \\( t_n \\) the n-grams of the response and \\( m_n \\) those that another has too, each counted at most as
    often as in the one that has most of it; \\( c \\) the length of the response and \\( r \\) the nearest of the
    others' (the shorter if two are equally near); \\( N = 4 \\), or the length of a shorter response. A count
    \\( m_n = 0 \\) is taken for 0.1, and a response that shares no word has 0. That is the sentence BLEU of sacrebleu
    with `smooth_method="floor"` and `effective_order=True`. Ours: an empty response has 1 if another is empty too.

    NaN for a single response. All responses are used: the time grows with the number of n-grams, since the largest
    count among the others is the largest of all, or the second largest if the largest is one's own.

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
    """For each pair of n-gram and text: the largest count of the n-gram in another text."""
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
