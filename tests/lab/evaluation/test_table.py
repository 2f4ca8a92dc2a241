import math

import pytest
from rich.console import Console

from trl_entropy.lab.evaluation.figures import score_tables
from trl_entropy.lab.evaluation.metrics import Score


SETS = ["aime24", "aime25", "amc23", "math500", "olympiadbench"]


def printed(names: list[str], width: int, score: Score) -> list[str]:
    """The lines of the tables, and that no value is cut."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(*score_tables({name: {"response_length": score} for name in names}, width))
    text = capture.get()
    assert "\u2026" not in text
    return text.splitlines()


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (80, 2), (40, 5)])
def test_sets_stand_in_as_many_tables_as_they_need(width, tables):
    lines = printed(SETS, width, Score(2048.5, 102.25))
    assert sum(line.startswith("│ response_length") for line in lines) == tables
    assert sum(line.count("2048.5 ± 102.2") for line in lines) == 5


def test_long_name_of_a_dataset_is_broken():
    lines = printed(["a/folder/" * 20 + "problems.jsonl"], 80, Score(0.5, math.nan))
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("│ response_length") and "0.500" in line for line in lines)
