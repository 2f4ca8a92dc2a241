"""The answers of MATH can be read."""

from pathlib import Path

import pytest

from trl_entropy.rewards import Verifier
from trl_entropy.rewards.answers import gold_in


DATA = Path(__file__).parent / "data"
# A minus sign in the box of a \phantom
UNREADABLE = [r"\begin{pmatrix} 1 & -1 \\ 1 & \phantom -1 \end{pmatrix}"]


def lines(name: str) -> list[str]:
    return (DATA / name).read_text(encoding="utf-8").splitlines()


# The number of answers, and those that are not read
@pytest.mark.parametrize(
    ("name", "number", "unreadable"),
    [
        ("math500_answers.txt", 301, []),
        pytest.param("math_answers.txt", 3040, UNREADABLE, marks=pytest.mark.slow),
    ],
)
def test_answers_of_math_are_read_and_equal_themselves(name, number, unreadable):
    verifier = Verifier(10.0, workers=2)
    golds = lines(name)
    verdicts = verifier.self_check(golds)
    verifier.close()
    assert len(golds) == number
    assert [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict != "correct"] == unreadable


def test_bare_answers_of_math_are_golds_as_they_stand():
    assert [gold for gold in lines("math_answers.txt") if gold_in(gold) != gold] == []


@pytest.mark.parametrize("name", ["math_answers.txt", "math500_answers.txt"])
def test_files_are_sorted_and_without_repeats(name):
    golds = lines(name)
    assert golds == sorted(set(golds))
    assert all(gold == gold.strip() != "" for gold in golds)
    assert set(golds) <= set(lines("math_answers.txt"))
