"""`trl-entropy data deduplicate`: a dataset with every problem once."""

from collections.abc import Sequence

from .duplicates import find_duplicates
from .flags import (
    MAX_ROWS,
    add_dataset,
    add_max_rows,
    add_output,
    problems_in,
    read,
    read_rows,
    reader,
    reasons,
    shortened,
    without,
    write,
)


def run(arguments: list[str]) -> None:
    """Leave out problems that are there twice, word for word or nearly; print which and why."""
    parser = reader("deduplicate", run.__doc__)
    add_dataset(parser)
    add_output(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=1.0,
        help="similarity of n-grams from which a problem is left out, in (0, 1]; default: 1, the same words",
    )
    parser.add_argument("--ngram", type=int, default=3, help="words, numbers and signs of an n-gram; default: 3")
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
    """Rows to leave out, and lines that say why; errors are those of [`~data.duplicates.find_duplicates`]."""
    found = find_duplicates(texts, threshold, n)

    def line(row: int, of: int, similarity: float) -> str:
        return f"row {row} repeats row {of}, similarity {similarity:.2f}: {shortened(texts[row])}"

    summary = f"{len(found)} of {len(texts)} problems are duplicates"
    return [duplicate.row for duplicate in found], reasons(line, found, summary, max_rows)
