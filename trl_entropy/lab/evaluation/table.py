"""What an evaluation prints."""

from collections.abc import Mapping
from math import isnan

from rich.table import Column, Table

from .metrics import Score
from .paired import Difference


NAMES, COLUMN = 20, 18  # characters of the column of names, and of one of values, with their borders


def score_tables(tables: Mapping[str, Mapping[str, Score]], width: int) -> list[Table]:
    """
    A column for each set of problems: value ± standard error; in as many tables as the columns need.

    Args:
        tables (`Mapping[str, Mapping[str, Score]]`):
            Scores by the name of their set.
        width (`int`):
            Characters in a line.
    """
    sets = list(tables)
    at_once = max(1, (width - NAMES) // COLUMN)
    parts = [sets[start : start + at_once] for start in range(0, len(sets), at_once)]
    return [_score_table({name: tables[name] for name in part}) for part in parts]


def _score_table(tables: Mapping[str, Mapping[str, Score]]) -> Table:
    table = Table(Column("", no_wrap=True), *(Column(name, justify="right", overflow="fold") for name in tables))
    for name in next(iter(tables.values())):
        table.add_row(name, *(_score(scores[name]) for scores in tables.values()))
    return table


def difference_table(title: str, differences: Mapping[str, Difference]) -> Table:
    """A row for each metric: the difference, its interval, the problems won and lost, the sign test."""
    right = {"justify": "right", "no_wrap": True}
    columns = [Column(name, **right) for name in ("difference", "95% interval", "won", "lost", "sign test p")]
    table = Table("", *columns, title=title, title_justify="left")
    for name, difference in differences.items():
        interval = f"{_number(difference.low, '+')} to {_number(difference.high, '+')}"
        counts = ["-" if count is None else str(count) for count in (difference.wins, difference.losses)]
        p_value = "-" if isnan(difference.p_value) else f"{difference.p_value:.3g}"
        table.add_row(name, _number(difference.value, "+"), interval, *counts, p_value)
    return table


def _score(score: Score) -> str:
    value = _number(score.value)
    return value if isnan(score.stderr) else f"{value} ± {_number(score.stderr)}"


def _number(value: float, sign: str = "") -> str:
    if isnan(value):
        return "-"
    value = round(value, 9)  # equal values, though computed in other ways, are printed alike
    return f"{value:{sign}.1f}" if abs(value) >= 100 else f"{value:{sign}.3f}"
