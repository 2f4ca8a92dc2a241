"""How much the problems of a dataset differ, and subsets that keep what is different."""

import importlib.util
import warnings
from collections.abc import Sequence

import numpy as np


LARGE = 50_000  # problems, above which K-means works on samples of them
BLOCK = 1024  # problems whose distances to all chosen ones are in memory at once


def embed_tfidf(texts: Sequence[str]):
    """
    Words of each text, weighted by how rare they are, as rows of length 1, `(N, D)`, a scipy sparse matrix.

    Ours: scikit-learn's defaults, with words of one letter and numbers among the words. A text without words is a row
    of zeros.

    Args:
        texts (`Sequence[str]`):
            The problems.

    Raises `ImportError` without scikit-learn, and `ValueError` if no text has a word.
    """
    _require_sklearn()
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)


def diversity(embeddings) -> float:
    r"""
    Mean cosine distance of two different problems, from 0 (all alike) to 1 for tf-idf.

    $$
    1 - \frac{\lVert \sum_i x_i \rVert^2 - \sum_i \lVert x_i \rVert^2}{N (N - 1)}
    $$

    with \\( x_i \\) the rows of `embeddings`: all pairs, in O(N D).

    Args:
        embeddings (`numpy.ndarray` or scipy sparse matrix):
            `(N, D)`, rows of length 1 or 0.

    Raises `ValueError` for fewer than two problems.
    """
    number = embeddings.shape[0]
    if number < 2:
        raise ValueError(f"diversity needs two problems at least, got {number}")
    total = np.asarray(embeddings.sum(axis=0)).ravel()
    own = float((embeddings**2).sum()) if isinstance(embeddings, np.ndarray) else float(embeddings.power(2).sum())
    return float(1 - (total @ total - own) / (number * (number - 1)))


def distance_to_nearest(embeddings, chosen: Sequence[int]) -> float:
    r"""
    Mean cosine distance of a problem to the nearest of a subset: how well the subset covers the dataset (ours).

    $$
    \frac{1}{N} \sum_i \min_{j \in \text{chosen}} (1 - x_i \cdot x_j)
    $$

    Args:
        embeddings (`numpy.ndarray` or scipy sparse matrix):
            `(N, D)`, rows of length 1 or 0.
        chosen (`Sequence[int]`):
            Rows of the subset.
    """
    subset = embeddings[list(chosen)].T
    nearest = [
        _dense(embeddings[start : start + BLOCK] @ subset).max(axis=1)
        for start in range(0, embeddings.shape[0], BLOCK)
    ]
    return float(1 - np.concatenate(nearest).mean())


def choose_kmeans(embeddings, n: int, seed: int = 0) -> list[int]:
    """
    Rows of `n` problems that differ: the nearest to the centre of each of `n` clusters, in the order of rows.

    Ours where 2511.05993 is silent: the number of clusters, that a cluster gives its most central problem, and mini
    batches for more than 50,000 problems. If there are fewer different problems than `n`, others are drawn at random.

    Args:
        embeddings (`numpy.ndarray` or scipy sparse matrix):
            `(N, D)`.
        n (`int`):
            Problems to choose, from 1 to N.
        seed (`int`, *optional*, defaults to `0`):
            Of the first centres.

    Raises `ImportError` without scikit-learn, and `ValueError` for another n.

    Reference: [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025, section 6.3.
    """
    _check_size(embeddings.shape[0], n)
    _require_sklearn()
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kind = KMeans if embeddings.shape[0] <= LARGE else MiniBatchKMeans
    clusters = kind(n, n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different problems than clusters
        labels = clusters.fit_predict(embeddings)
    chosen = set()
    for cluster, centre in enumerate(clusters.cluster_centers_):
        members = np.flatnonzero(labels == cluster)
        if len(members):
            chosen.add(int(members[np.argmin(_distances(embeddings[members], centre))]))
    others = [row for row in range(embeddings.shape[0]) if row not in chosen]
    missing = choose_random(len(others), n - len(chosen), seed) if len(chosen) < n else []
    return sorted(chosen | {others[place] for place in missing})


def choose_random(count: int, n: int, seed: int = 0) -> list[int]:
    """Rows of `n` of `count` problems, drawn without replacement, in the order of rows; errors as for K-means."""
    _check_size(count, n)
    return sorted(np.random.default_rng(seed).choice(count, n, replace=False).tolist())


def _dense(matrix) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _distances(rows, centre: np.ndarray) -> np.ndarray:
    """Squared distances of rows to a centre, less the square of the centre itself."""
    squares = (rows**2).sum(axis=1) if isinstance(rows, np.ndarray) else np.asarray(rows.power(2).sum(axis=1)).ravel()
    return squares - 2 * (rows @ centre)


def _check_size(count: int, n: int) -> None:
    if not 1 <= n <= count:
        raise ValueError(f"a subset has 1 to all {count} problems, got {n}")


def _require_sklearn() -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError('The package scikit-learn is not installed: run `pip install "trl-entropy[lab]"`.')
