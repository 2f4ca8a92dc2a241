"""What an evaluation prints."""

from collections.abc import Mapping
from math import isnan

from rich.table import Column, Table

from .metrics import Score
from .paired import Difference


def score_table(tables: Mapping[str, Mapping[str, Score]]) -> Table:
    """A column for each set of problems: value ± standard error. avg@k is the same for every k, so it has one row."""
    table = Table("", *(Column(name, justify="right", no_wrap=True) for name in tables))
    first = next(iter(tables.values()))
    averages = [name for name in first if name.startswith("avg@")]
    for name in first:
        if name not in averages[:-1]:
            table.add_row(name, *(_score(scores[name]) for scores in tables.values()))
    return table


def difference_table(title: str, differences: Mapping[str, Difference]) -> Table:
    """A row for each metric: the difference, its interval, the problems won and lost, the sign test."""
    right = {"justify": "right", "no_wrap": True}
    columns = [Column(name, **right) for name in ("difference", "95% interval", "won", "lost", "sign test p")]
    table = Table("", *columns, title=title, title_justify="left")
    averages = [name for name in differences if name.startswith("avg@")]
    for name, difference in differences.items():
        if name not in averages[:-1]:
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
    return f"{value:{sign}.1f}" if abs(value) >= 100 else f"{value:{sign}.3f}"
