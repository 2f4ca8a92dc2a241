"""Verdicts on bare text, decided by hand."""

import pytest
import verdict_tables as tables

from trl_entropy.rewards import MathVerifyReward
from trl_entropy.rewards.math_verify import golds_in


KINDS = ("UNITS", "FUNCTIONS", "WORDS", "NUMBERS", "MIXED", "INTERVALS", "FREEFORM", "ATTACKS")


@pytest.fixture(scope="module")
def reward() -> MathVerifyReward:
    made = MathVerifyReward(deadline=20.0, workers=2)
    yield made
    made.verifier.close()


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_are_those_decided_by_hand(reward, kind):
    rows = getattr(tables, kind)
    assert min(sum(right for *_, right in rows), sum(not right for *_, right in rows)) >= 20
    _, verdicts = reward.verdicts([rf"\boxed{{{answer}}}" for _, answer, _ in rows], [gold for gold, _, _ in rows])
    assert [row for row, verdict in zip(rows, verdicts, strict=True) if (verdict == "correct") != row[2]] == []


@pytest.mark.parametrize("source", ["announced", "hashes", "last_number"])
def test_answers_outside_of_boxes_are_those_decided_by_hand(reward, source):
    rows = [row for row in tables.FALLBACK if row[3] == source]
    _, verdicts = MathVerifyReward([source], 20.0, 2).verdicts([row[0] for row in rows], [row[1] for row in rows])
    assert [row for row, verdict in zip(rows, verdicts, strict=True) if (verdict == "correct") != row[2]] == []


@pytest.mark.parametrize("cell", [*tables.GOLDS_MISSING, None, float("nan")])
def test_missing_value_is_not_a_gold(reward, cell):
    assert golds_in(cell) == []
    assert reward([r"\boxed{nan}", r"\boxed{None}", r"\boxed{n a n}"], [cell] * 3) == [None] * 3


def test_missing_value_is_warned_about(caplog):
    assert MathVerifyReward(deadline=20.0, workers=2)(["7"] * 3, ["N/A", None, "N/A"]) == [None] * 3
    assert caplog.messages == [
        f"the solution {cell!r} is missing or cannot be read; only an identical text gets a reward"
        for cell in ("N/A", None)
    ]


@pytest.mark.parametrize("cell", tables.GOLDS_NOT_MISSING)
def test_word_or_zero_is_a_gold(cell):
    assert golds_in(cell) != []


@pytest.mark.parametrize(("cell", "answer"), [(1e-05, "0.00001"), (1e16, "10^{16}"), (1.5e17, "150000000000000000")])
def test_cell_of_a_float_column_is_its_number(reward, cell, answer):
    assert reward([rf"\boxed{{{answer}}}", r"\boxed{e-5}"], [cell, cell]) == [1.0, 0.0]
