"""`trl-entropy data diversify`: a small subset of a dataset that covers it."""

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from ...checks import unknown
from ...commands.sources import WAYS
from .diversity import choose_kmeans, choose_random, distance_to_nearest, diversity, embed_tfidf
from .encoder import embed_encoder
from .flags import add_dataset, add_output, problems_in, read, read_rows, reader, write


DRAWN = 5  # random subsets to compare with


def run(arguments: list[str]) -> None:
    """Write a subset by K-means or at random, and print how diverse the whole, the subset and random ones are."""
    parser = reader("diversify", run.__doc__)
    add_dataset(parser)
    add_output(parser)
    parser.add_argument("--size", type=int, required=True, help="problems of the subset; 616 in 2511.05993")
    parser.add_argument("--by", choices=WAYS, default="kmeans", help="default: kmeans, one problem of each cluster")
    parser.add_argument("--encoder", help="folder or name of a model whose mean hidden state embeds; default: tf-idf")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    given = read(parser, arguments)
    dataset = read_rows(given)
    texts = problems_in(dataset, given.prompt_column)
    check_subset(given.size, given.by, len(texts))
    embeddings = embed_encoder(texts, given.encoder) if given.encoder else embed_tfidf(texts)
    if given.by == "random":
        chosen = choose_random(len(texts), given.size, given.seed)
    else:
        chosen = choose_kmeans(embeddings, given.size, given.seed)
    Console().print(_table(embeddings, chosen, given))
    write(dataset.select(chosen), given)


def check_subset(size: int, by: str, count: int) -> None:
    """Raises `ValueError` for a way that does not exist, and for a size below 1 or above `count`."""
    if by not in WAYS:
        raise unknown("way to choose a subset", by, WAYS)
    if not 1 <= size <= count:
        raise ValueError(f"a subset has 1 to all {count} problems, got {size}")


def subset(texts: Sequence[str], size: int, by: str, seed: int) -> list[int]:
    """Rows of a subset, by tf-idf embeddings where any are needed."""
    check_subset(size, by, len(texts))
    return choose_random(len(texts), size, seed) if by == "random" else choose_kmeans(embed_tfidf(texts), size, seed)


def _table(embeddings, chosen: list[int], given: argparse.Namespace) -> Table:
    number = embeddings.shape[0]
    drawn = [choose_random(number, given.size, given.seed + 1 + place) for place in range(DRAWN)]
    table = Table("", "problems", "diversity", "distance to the nearest chosen")
    table.add_row("all", str(number), _diversity(embeddings, list(range(number))), _number(0.0))
    table.add_row(
        given.by,
        str(given.size),
        _diversity(embeddings, chosen),
        _number(distance_to_nearest(embeddings, chosen)),
    )
    table.add_row(
        f"{DRAWN} random",
        str(given.size),
        _spread([diversity(embeddings[rows]) for rows in drawn] if given.size > 1 else []),
        _spread([distance_to_nearest(embeddings, rows) for rows in drawn]),
    )
    return table


def _diversity(embeddings, rows: list[int]) -> str:
    return _number(diversity(embeddings[rows])) if len(rows) > 1 else "-"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" if values else "-"
