"""Flags that the verbs share: for the dataset to read and the file to write."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Dataset, Value

from ...commands.cli import parse
from ...data import held_out_problems, train_problems
from ...data.files import EMBEDDED, check_split, load
from ...data.problems import values_in
from ...rewards.messages import check_prompts, text_of
from ...written import add_overwrite, check_not_in_dataset, check_output, written
from ..evaluation.command import add_dataset


MAX_ROWS = 20


def reader(verb: str, description: str, reads: bool = True) -> argparse.ArgumentParser:
    """A parser for a verb, with the flags for the output file and, unless `reads` is false, for the dataset."""
    parser = argparse.ArgumentParser(prog=f"trl-entropy data {verb}", description=description, allow_abbrev=False)
    if reads:
        add_dataset(parser, "train", required=True)
    parser.add_argument("--output", required=True, help=f"file to write ({', '.join(WRITERS)}); all columns are kept")
    add_overwrite(parser)
    return parser


def add_max_rows(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the number of rows to print."""
    parser.add_argument("--max_rows", type=int, default=MAX_ROWS, help=f"number of rows to print; default: {MAX_ROWS}")


def read(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the flags; raises `ValueError` with one line for a wrong flag or an output that may not be written."""
    given = parse(parser, arguments)
    if Path(given.output).suffix not in WRITERS:
        raise ValueError(f"output must end in one of {', '.join(WRITERS)}, got {given.output!r}")
    read_from = (getattr(given, flag, None) for flag in ("dataset", "encoder", "model"))
    check_output(given.output, given.overwrite, filter(None, read_from))
    if given.dataset:
        check_not_in_dataset(given.output, given.dataset)
    if getattr(given, "max_rows", 0) < 0:
        raise ValueError(f"max_rows must be at least 0, got {given.max_rows}")
    return given


def read_rows(given: argparse.Namespace) -> Dataset:
    """The dataset; raises `ValueError` if it does not exist or is empty."""
    if given.dataset == EMBEDDED:
        check_split(EMBEDDED, given.dataset_split)
        return train_problems() if given.dataset_split == "train" else held_out_problems()
    dataset = load(given.dataset, given.dataset_config, given.dataset_split)
    if len(dataset) == 0:
        raise ValueError("the dataset is empty")
    nested = [name for name, kind in dataset.features.items() if not isinstance(kind, Value)]
    if nested and Path(given.output).suffix == ".csv":
        raise ValueError(
            f"output={given.output!r}: a .csv file cannot hold the lists in {nested[0]!r}, a .jsonl file can"
        )
    return dataset


def problems_in(dataset: Dataset, column: str) -> list[str]:
    """The problems as text; raises `ValueError` for a missing column, or a value that is not a prompt."""
    prompts = values_in(dataset, column, "prompt_column")
    check_prompts(prompts, column)
    return [text_of(prompt) for prompt in prompts]


def write(dataset: Dataset, given: argparse.Namespace) -> None:
    """Write the dataset to the file in the flags, in the format of its extension."""
    with written(given.output, given.overwrite) as part:
        WRITERS[Path(given.output).suffix](dataset, str(part))
    print(f"{len(dataset)} problems: {given.output}")


def _to_json(dataset: Dataset, path: str) -> None:
    """Like `Dataset.to_json`, which rounds numbers to 10 decimals, but with all digits."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, default=_plain) + "\n" for row in dataset)


def _plain(value: object) -> str:
    """A date or a time as text."""
    if not hasattr(value, "isoformat"):
        raise ValueError(f"a {type(value).__name__} cannot be written as JSON: give a .parquet file as output")
    return value.isoformat()


WRITERS = {".csv": Dataset.to_csv, ".json": _to_json, ".jsonl": _to_json, ".parquet": Dataset.to_parquet}


def shortened(text: str, length: int = 100) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def reasons(line: Callable[..., str], found: Sequence[tuple], summary: str, max_rows: int = MAX_ROWS) -> list[str]:
    """A line for each of the first cases, the number of further cases, and a summary."""
    more = [f"... and {len(found) - max_rows} more"] if len(found) > max_rows else []
    return [*(line(*what) for what in found[:max_rows]), *more, summary]


def without(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """The dataset without some rows."""
    left_out = set(rows)
    return dataset.select([row for row in range(len(dataset)) if row not in left_out])
