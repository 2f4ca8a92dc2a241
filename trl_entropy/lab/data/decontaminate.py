"""`trl-entropy data decontaminate`: remove the problems of benchmarks from a dataset."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ...data.files import LOCAL_FILES, load
from ...data.problems import BENCHMARKS, PROMPTS, benchmark_file, check_benchmarks, read_benchmark
from ...rewards.messages import check_prompts, text_of
from ...written import check_output
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
from .texts import ngrams, words


class Overlap(NamedTuple):
    """A contaminated row, the benchmark, the number of the problem there, and the shared words."""

    row: int
    benchmark: str
    problem: int
    ngram: str


def find_contamination(texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]], n: int = 13) -> list[Overlap]:
    """
    The texts that share `n` consecutive words with a benchmark problem, each with the first match.

    White space separates words; case and punctuation do not count. A problem with fewer than `n` words must occur as a
    whole (ours).

    Args:
        texts (`Sequence[str]`):
            The problems to train on.
        benchmarks (`Mapping[str, Sequence[str]]`):
            The problems to evaluate on, by name.
        n (`int`, *optional*, defaults to `13`):
            Number of words; GPT-3's value.

    Raises `ValueError` for n below 1.

    Reference: Brown et al., [Language Models are Few-Shot Learners](https://huggingface.co/papers/2005.14165), 2020,
    appendix C.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    places: dict[tuple[str, ...], tuple[str, int]] = {}
    for name, problems in benchmarks.items():
        for number, problem in enumerate(problems):
            for gram in ngrams(words(problem), n):
                places.setdefault(gram, (name, number))
    lengths = sorted({len(gram) for gram in places}, reverse=True)

    @cache  # rows may repeat
    def shared(text: str) -> tuple[str, ...] | None:
        own = words(text)
        grams = (gram for length in lengths if length <= len(own) for gram in ngrams(own, length))
        return next((gram for gram in grams if gram in places), None)

    grams = [shared(text) for text in texts]
    return [Overlap(row, *places[gram], " ".join(gram)) for row, gram in enumerate(grams) if gram is not None]


def run(arguments: list[str]) -> None:
    """Remove problems that share consecutive words with a benchmark; print them, the benchmark and the words."""
    parser = reader("decontaminate", run.__doc__)
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar="NAME",
        help=f"files with problems, or some of {', '.join(BENCHMARKS)}",
    )
    parser.add_argument("--benchmarks_dir", help="folder with NAME.jsonl or NAME/test.jsonl; default: the hub")
    parser.add_argument(
        "--ngram", type=int, default=13, help="number of consecutive words that must agree; default: 13, as for GPT-3"
    )
    add_max_rows(parser)
    given = read(parser, arguments)
    check_benchmarks(given.against)
    check_output(given.output, given.overwrite, _files(given.against, given.benchmarks_dir))
    dataset = read_rows(given)
    texts = problems_in(dataset, given.prompt_column)
    rows, lines = contaminated(texts, benchmarks(given.against, given.benchmarks_dir), given.ngram, given.max_rows)
    print("\n".join(lines))
    write(without(dataset, rows), given)


def benchmarks(names: Sequence[str], folder: str | None = None) -> dict[str, list[str]]:
    """The problems of benchmarks and files as text; raises `ValueError` if one does not exist."""
    check_benchmarks(names)
    return {
        name: _problems_of_file(name)
        if Path(name).suffix in LOCAL_FILES
        else [text_of(problem.prompt) for problem in read_benchmark(name, folder)]
        for name in names
    }


def contaminated(
    texts: Sequence[str], problems: Mapping[str, Sequence[str]], n: int = 13, max_rows: int = MAX_ROWS
) -> tuple[list[int], list[str]]:
    """Rows to remove, and lines that say why; raises as [`find_contamination`] does."""
    found = find_contamination(texts, problems, n)

    def line(row: int, benchmark: str, problem: int, ngram: str) -> str:
        return f"row {row} shares with problem {problem} of {benchmark}: {ngram!r}: {shortened(texts[row])}"

    counts = Counter(overlap.benchmark for overlap in found)
    of_each = ", ".join(f"{name} {counts[name]}" for name in problems)
    summary = f"{len(found)} of {len(texts)} problems share words with a benchmark: {of_each}"
    return [overlap.row for overlap in found], reasons(line, found, summary, max_rows)


def _files(names: Sequence[str], folder: str | None) -> list[str]:
    """The files to read for benchmarks and files by name."""
    return [
        name if folder is None or Path(name).suffix in LOCAL_FILES else benchmark_file(name, folder) for name in names
    ]


def _problems_of_file(name: str) -> list[str]:
    dataset = load(name)
    column = next((column for column in PROMPTS if column in dataset.column_names), None)
    if column is None:
        raise ValueError(f"{name!r} needs a column {' or '.join(PROMPTS)}; it has {', '.join(dataset.column_names)}")
    check_prompts(dataset[column], column, repr(name))
    return [text_of(prompt) for prompt in dataset[column]]
