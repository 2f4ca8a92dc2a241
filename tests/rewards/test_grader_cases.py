"""Pairs that other graders test themselves with."""

import json
from pathlib import Path

import pytest

from trl_entropy.rewards import Verifier
from trl_entropy.rewards.answers import answer_in, gold_in


SOURCES = ("all_boxed", "hashes", "announced", "last_maths")
CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "grader_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
# Where the verdict is another one than the case expects, and why
DISAGREEMENTS = {
    ("1,22", "1.22"): "a comma in the gold is no decimal point",
    ("$10/9$", r"Answer $ \frac{1}{2} \$ = \frac{10}{9} $"): "a dollar sign stands in the middle, and 1/2 is not 10/9",
    (r"$(\frac{3}{5},\frac{8}{3}]$", "$(0.6,2.6667]$"): "2.6667 is 8/3 to 4 places only",
    (r"\\boxed{W(n) = 1 \\text{ and } W(n) = -1", "W(x)=1orW(x)=-1"): "the box of the gold is not closed",
    (r"$\\boxed{35 cm} ++++++ \\boxed{4}$", "${35 cm,4}$"): "plus signs between two boxes of the gold",
    ("220", "Réponse: Janeth aura encore 220 $ à payer d'ici 12 mois."): "not announced in English",
    ("4, 10, -2", "10, 4, -2"): "a list has no order",
    ("4, .1, 2", "0.1, 4, 2"): "a list has no order",
    ("10", r"10\%"): "10% is a tenth",
}


@pytest.fixture(scope="module")
def verdicts() -> list[str]:
    verifier = Verifier(10.0, workers=2)
    answers = [case["answer"] if case["form"] == "bare" else answer_in(case["answer"], SOURCES) for case in CASES]
    found = verifier.verdicts([gold_in(case["gold"]) for case in CASES], answers)
    verifier.close()
    return found


def test_verdicts_are_those_expected_but_for_known_ones(verdicts):
    others = [
        (case["gold"], case["answer"])
        for case, verdict in zip(CASES, verdicts, strict=True)
        if (verdict == "correct") != (case["expected"] == 1)
    ]
    assert sorted(others) == sorted(DISAGREEMENTS)


def test_no_pair_ends_or_outlasts_its_process(verdicts):
    assert not {"timeout", "error"} & set(verdicts)


def test_cases_of_every_form_are_there():
    forms = [case["form"] for case in CASES]
    assert {form: forms.count(form) for form in forms} == {
        "bare": 32,
        "marked": 127,
        "completion": 32,
        "gsm8k_output": 40,
    }
    assert {case["license"] for case in CASES} == {"MIT", "Apache-2.0"}
