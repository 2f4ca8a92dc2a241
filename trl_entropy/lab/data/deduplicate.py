"""`trl-entropy data deduplicate`: keep every problem of a dataset once."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from .flags import (
    MAX_ROWS,
    add_max_rows,
    problems_in,
    read,
    read_rows,
    reader,
    reasons,
    shortened,
    without,
    write,
)
from .texts import ngrams, units


class Duplicate(NamedTuple):
    """A problem to remove: its row, the earlier row that stays, and their similarity from 0 to 1."""

    row: int
    of: int
    similarity: float


def find_duplicates(texts: Sequence[str], threshold: float = 1.0, n: int = 3) -> list[Duplicate]:
    r"""
    The texts that are equal or similar to an earlier text that stays, in the order of rows.

    $$
    J(a, b) = \frac{|G_a \cap G_b|}{|G_a \cup G_b|} \ge \text{threshold}
    $$

    with \\( G \\) the `n`-grams of a text, each as often as it occurs. Texts with the same words, numbers and signs
    are found at any threshold, with a similarity of 1. The search is exact: two sets that are similar enough share one
    of the rarest \\( |G| - \lceil \text{threshold} \, |G| \rceil + 1 \\) members of each, so only these are looked up.

    Args:
        texts (`Sequence[str]`):
            The problems.
        threshold (`float`, *optional*, defaults to `1.0`):
            Similarity from which a text counts as a duplicate, in (0, 1]; 1 only finds equal texts.
        n (`int`, *optional*, defaults to `3`):
            Number of words, numbers and signs in an n-gram.

    Raises `ValueError` for a threshold outside (0, 1] or n below 1.

    Reference: Bayardo et al., [Scaling Up All Pairs Similarity Search](https://doi.org/10.1145/1242572.1242591), 2007.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a similarity in (0, 1], got {threshold}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    found, first = [], {}
    as_written: dict[str, int] = {}  # saves most of the work if rows repeat literally
    for row, text in enumerate(texts):
        if text not in as_written:
            as_written[text] = first.setdefault(" ".join(units(text)), row)
        if as_written[text] != row:
            found.append(Duplicate(row, as_written[text], 1.0))
    if threshold == 1:
        return found
    near = _near({row: _numbered(ngrams(text.split(), n)) for text, row in first.items()}, threshold)
    removed = {duplicate.row: duplicate for duplicate in near}
    found = [removed.get(duplicate.of, duplicate)._replace(row=duplicate.row) for duplicate in found]
    return sorted(found + near)


def _numbered(grams: Sequence[tuple[str, ...]]) -> frozenset:
    """A set in which the second occurrence of an n-gram differs from the first."""
    seen = Counter()
    members = []
    for gram in grams:
        members.append((gram, seen[gram]))
        seen[gram] += 1
    return frozenset(members)


def _near(sets: dict[int, frozenset], threshold: float) -> list[Duplicate]:
    frequency = Counter(gram for grams in sets.values() for gram in grams)
    rows_with = defaultdict(list)
    found = []
    for row, grams in sets.items():
        rarest = sorted(grams, key=lambda gram: (frequency[gram], gram))
        rarest = rarest[: len(grams) - math.ceil(threshold * len(grams)) + 1]
        candidates = sorted({other for gram in rarest for other in rows_with[gram]})
        nearest = max(candidates, key=lambda other: _jaccard(grams, sets[other]), default=None)
        if nearest is not None and (similarity := _jaccard(grams, sets[nearest])) >= threshold:
            found.append(Duplicate(row, nearest, similarity))
            continue
        for gram in rarest:
            rows_with[gram].append(row)
    return found


def _jaccard(one: frozenset, other: frozenset) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def run(arguments: list[str]) -> None:
    """Remove problems that occur twice, literally or nearly; print which and why."""
    parser = reader("deduplicate", run.__doc__)
    parser.add_argument(
        "--threshold",
        type=float,
        default=1.0,
        help="similarity of n-grams from which a problem is removed, in (0, 1]; default: 1, the same words",
    )
    parser.add_argument(
        "--ngram", type=int, default=3, help="number of words, numbers and signs in an n-gram; default: 3"
    )
    add_max_rows(parser)
    given = read(parser, arguments)
    dataset = read_rows(given)
    texts = problems_in(dataset, given.prompt_column)
    rows, lines = duplicates(texts, given.threshold, given.ngram, given.max_rows)
    print("\n".join(lines))
    write(without(dataset, rows), given)


def duplicates(
    texts: Sequence[str], threshold: float = 1.0, n: int = 3, max_rows: int = MAX_ROWS
) -> tuple[list[int], list[str]]:
    """Rows to remove, and lines that say why; raises as [`find_duplicates`] does."""
    found = find_duplicates(texts, threshold, n)

    def line(row: int, of: int, similarity: float) -> str:
        return f"row {row} repeats row {of}, similarity {similarity:.2f}: {shortened(texts[row])}"

    summary = f"{len(found)} of {len(texts)} problems are duplicates"
    return [duplicate.row for duplicate in found], reasons(line, found, summary, max_rows)
