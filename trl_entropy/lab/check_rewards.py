"""Check that the verifier can read the solutions of a dataset, before training on them."""

import argparse
import logging
import math
import sys
from collections import Counter
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..commands.cli import parse, refuse
from ..data.files import FORMATS, load
from ..data.problems import values_in
from ..rewards.math_verify import golds_in
from ..rewards.verifier import CHECKS, Verifier


class Row(NamedTuple):
    """One row of the dataset: its number, its solution, and the check's result."""

    number: int
    solution: object
    verdict: str


def main(arguments: list[str]) -> None:
    """`trl-entropy check-rewards`."""
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        passed = check(read(arguments))
    except ValueError as error:
        refuse("check-rewards", error)
    sys.exit(0 if passed else 1)


def read(arguments: list[str]) -> argparse.Namespace:
    """Parse the flags; raises `ValueError` with one line for a wrong one."""
    parser = argparse.ArgumentParser(
        prog="trl-entropy check-rewards",
        description="Read every solution of a dataset with math_verify_reward's engine, and compare it with itself. "
        "A solution that cannot be read only rewards an identical text, so it gives little or no signal.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        *("--dataset_name", "--dataset"),
        dest="dataset_name",
        required=True,
        help=f"name on the hub, saved dataset, or file ({FORMATS})",
    )
    parser.add_argument("--dataset_config", help="configuration of the dataset")
    parser.add_argument(
        *("--dataset_split", "--dataset_train_split"), dest="dataset_train_split", default="train", help="split"
    )
    parser.add_argument(
        "--solution_column", default="solution", help="column with the solution; a dotted name means a nested column"
    )
    parser.add_argument("--max_failures", type=float, default=0.01, help="largest share of rows that may fail")
    parser.add_argument("--max_rows", type=int, default=20, help="number of failing rows to print")
    parser.add_argument("--grading_deadline", type=float, default=3.0, help="seconds per solution")
    parser.add_argument(
        "--grading_workers", type=int, help="number of processes; default: the number of cores, at most 8"
    )
    given = parse(parser, arguments)
    if given.max_rows < 0:
        raise ValueError(f"max_rows must be at least 0, got {given.max_rows}")
    if not 0 <= given.max_failures <= 1:
        raise ValueError(f"max_failures must be a share from 0 to 1, got {given.max_failures}")
    return given


def check(given: argparse.Namespace) -> bool:
    """Print reasons and failing rows; return whether at most `max_failures` of the rows fail."""
    verifier = Verifier(given.grading_deadline, given.grading_workers, batch_deadline=math.inf)
    dataset = load(given.dataset_name, given.dataset_config, given.dataset_train_split)
    rows = graded(values_in(dataset, given.solution_column, "solution_column"), verifier)
    failing = [row for row in rows if row.verdict != "correct"]
    _print(rows, failing[: given.max_rows])
    share = len(failing) / len(rows)
    passed = share <= given.max_failures
    print(
        f"{len(failing)} of {len(rows)} solutions cannot be read ({share:.2%}); "
        f"{'at most' if passed else 'more than'} the {given.max_failures:.2%} of max_failures"
    )
    return passed


def graded(solutions: list, verifier: Verifier) -> list[Row]:
    """Read every solution and compare it with itself; equal text does not count."""
    golds = [golds_in(solution) for solution in solutions]
    each = {gold: None for row in golds for gold in row}
    verdicts = dict(zip(each, verifier.self_check(list(each)), strict=True))
    worst = [next((verdicts[gold] for gold in row if verdicts[gold] != "correct"), "correct") for row in golds]
    return [
        Row(number, solution, verdict if row else "unparsable_gold")
        for number, (solution, row, verdict) in enumerate(zip(solutions, golds, worst, strict=True))
    ]


def _print(rows: list[Row], failing: list[Row]) -> None:
    console = Console()
    counts = Counter(row.verdict for row in rows)
    table = Table("reason", "rows", "share")
    for reason in CHECKS:
        if counts[reason]:
            table.add_row(reason, str(counts[reason]), f"{counts[reason] / len(rows):.2%}")
    console.print(table)
    if failing:
        table = Table("row", "reason", Column("solution", overflow="fold"), title="Failing rows", title_justify="left")
        for row in failing:
            table.add_row(str(row.number), row.verdict, Text(repr(row.solution)[-200:]))
        console.print(table)
