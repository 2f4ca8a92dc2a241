"""`trl-entropy data diversify`: choose a small subset that covers a dataset."""

import argparse
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ...checks import unknown
from ...commands.sources import WAYS
from ...data.files import first_line, model_path
from .flags import problems_in, read, read_rows, reader, write


RANDOM = 5  # number of random subsets to compare with
LARGE = 50_000  # number of problems above which K-means works on samples of them
BLOCK = 1024  # number of problems whose distances to all chosen ones are in memory at once
BATCH_SIZE = 32  # for an encoder; ours
LONGEST = 512  # tokens that an encoder reads; the rest of a problem is cut off (ours)


def embed_tfidf(texts: Sequence[str]):
    """
    The words of each text, weighted by rarity, as rows of length 1: a scipy sparse matrix `(N, D)`.

    Ours: scikit-learn's defaults, but one-letter words and numbers also count as words. A text without words is a row
    of zeros.

    Args:
        texts (`Sequence[str]`):
            The problems.

    Raises `ValueError` if no text has a word.
    """
    return TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)


@torch.no_grad()
def embed_encoder(texts: Sequence[str], name: str) -> np.ndarray:
    """
    The mean of each text's last hidden states, as rows of length 1, `(N, D)`.

    Args:
        texts (`Sequence[str]`):
            The problems.
        name (`str`):
            A transformers model, as folder or name on the hub, or "embedded".

    Raises `ValueError` if the model cannot be loaded.
    """
    path = model_path(name, "encoder")
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the encoder {name!r} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = model.to(device).eval()
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # for little padding
    means = {}
    for start in range(0, len(texts), BATCH_SIZE):
        chosen = by_length[start : start + BATCH_SIZE]
        batch = tokenizer(
            [texts[row] for row in chosen], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(device)
        states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        sums = torch.where(mask.bool(), states, 0.0).sum(1)
        means.update(zip(chosen, normalize(sums, dim=-1).cpu().numpy(), strict=True))
    return np.stack([means[row] for row in range(len(texts))])


def diversity(embeddings) -> float:
    r"""
    Mean cosine distance between two different problems; with tf-idf from 0 (all alike) to 1.

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
        raise ValueError(f"diversity needs at least two problems, got {number}")
    total = np.asarray(embeddings.sum(axis=0)).ravel()
    own = float((embeddings**2).sum()) if isinstance(embeddings, np.ndarray) else float(embeddings.power(2).sum())
    return float(1 - (total @ total - own) / (number * (number - 1)))


def distance_to_nearest(embeddings, chosen: Sequence[int]) -> float:
    r"""
    Mean cosine distance from a problem to the nearest one in a subset: how well the subset covers the dataset (ours).

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
    Rows of `n` different problems: the one nearest to the centre of each of `n` clusters, in the order of rows.

    Where 2511.05993 does not say, these choices are ours: the number of clusters, the most central problem of each
    cluster, and mini batches for more than 50,000 problems. If there are fewer than `n` different problems, the rest
    is chosen at random.

    Args:
        embeddings (`numpy.ndarray` or scipy sparse matrix):
            `(N, D)`.
        n (`int`):
            Number of problems to choose, from 1 to N.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the first centres.

    Raises `ValueError` for any other n.

    Reference: [Revisiting Entropy in Reinforcement Learning for Large Reasoning
    Models](https://huggingface.co/papers/2511.05993), 2025, section 6.3.
    """
    _check_size(embeddings.shape[0], n)
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
    """Rows of `n` out of `count` problems, without replacement, in row order; raises like [`choose_kmeans`]."""
    _check_size(count, n)
    return sorted(np.random.default_rng(seed).choice(count, n, replace=False).tolist())


def _dense(matrix) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def _distances(rows, centre: np.ndarray) -> np.ndarray:
    """Squared distances from rows to a centre, minus the centre's own square."""
    squares = (rows**2).sum(axis=1) if isinstance(rows, np.ndarray) else np.asarray(rows.power(2).sum(axis=1)).ravel()
    return squares - 2 * (rows @ centre)


def _check_size(count: int, n: int) -> None:
    if not 1 <= n <= count:
        raise ValueError(f"the size of a subset must be from 1 to {count}, the number of problems, got {n}")


def run(arguments: list[str]) -> None:
    """Choose a subset by K-means or at random; print the diversity of the dataset, the subset and random subsets."""
    parser = reader("diversify", run.__doc__)
    parser.add_argument("--size", type=int, required=True, help="number of problems in the subset; 616 in 2511.05993")
    parser.add_argument("--by", choices=WAYS, default="kmeans", help="default: kmeans, one problem per cluster")
    parser.add_argument(
        "--encoder", help="folder or name of a model that embeds problems by its mean hidden state; default: tf-idf"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    given = read(parser, arguments)
    dataset = read_rows(given)
    texts = problems_in(dataset, given.prompt_column)
    check_subset(given.size, given.by, len(texts))
    embeddings = embed_encoder(texts, given.encoder) if given.encoder else embed_tfidf(texts)
    chosen = _choose(embeddings, given.size, given.by, given.seed)
    Console().print(_table(embeddings, chosen, given))
    write(dataset.select(chosen), given)


def check_subset(size: int, by: str, count: int) -> None:
    """Raise `ValueError` for an unknown way, or a size below 1 or above `count`."""
    if by not in WAYS:
        raise unknown("way to choose a subset", by, WAYS)
    _check_size(count, size)


def subset(texts: Sequence[str], size: int, by: str, seed: int) -> list[int]:
    """Rows of a subset; with tf-idf embeddings if the way needs embeddings."""
    check_subset(size, by, len(texts))
    return _choose(np.empty((len(texts), 0)) if by == "random" else embed_tfidf(texts), size, by, seed)


def _choose(embeddings, size: int, by: str, seed: int) -> list[int]:
    if by == "random":
        return choose_random(embeddings.shape[0], size, seed)
    return choose_kmeans(embeddings, size, seed)


def _table(embeddings, chosen: list[int], given: argparse.Namespace) -> Table:
    number = embeddings.shape[0]
    others = [choose_random(number, given.size, given.seed + 1 + place) for place in range(RANDOM)]
    table = Table("", "problems", "diversity", "distance to the nearest chosen")
    for name, subsets in (("all", [list(range(number))]), (given.by, [chosen]), (f"{RANDOM} random", others)):
        size = len(subsets[0])
        differ = [diversity(embeddings[rows]) for rows in subsets if size > 1]
        nearest = [0.0 if size == number else distance_to_nearest(embeddings, rows) for rows in subsets]
        table.add_row(name, str(size), _cell(differ), _cell(nearest))
    return table


def _cell(values: list[float]) -> str:
    """The mean, with the standard deviation if there are several values."""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}" if values else "-"
