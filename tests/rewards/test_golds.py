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


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """The verdict on every answer of MATH as an answer to itself, by reading it."""
    verifier = Verifier(10.0, workers=2)
    golds = lines("math_answers.txt")
    found = dict(zip(golds, verifier.self_check(golds), strict=True))
    verifier.close()
    return found


def test_all_answers_of_math_but_one_are_read_and_equal_themselves(verdicts):
    assert len(verdicts) == 3040
    assert [gold for gold, verdict in verdicts.items() if verdict != "correct"] == UNREADABLE


def test_all_answers_of_math_500_are_read_and_equal_themselves(verdicts):
    golds = lines("math500_answers.txt")
    assert len(golds) == 301
    assert {verdicts[gold] for gold in golds} == {"correct"}


def test_bare_answers_of_math_are_golds_as_they_stand():
    assert [gold for gold in lines("math_answers.txt") if gold_in(gold) != gold] == []


@pytest.mark.parametrize("name", ["math_answers.txt", "math500_answers.txt"])
def test_files_are_sorted_and_without_repeats(name):
    golds = lines(name)
    assert golds == sorted(set(golds))
    assert all(gold == gold.strip() != "" for gold in golds)
    assert set(golds) <= set(lines("math_answers.txt"))
