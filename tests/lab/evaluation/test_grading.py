import pytest

from trl_entropy.lab.evaluation.scoring import answer_classes
from trl_entropy.rewards import MathVerifyReward, Verifier


@pytest.fixture(scope="module")
def verifier():
    made = Verifier(deadline=1.0, workers=1)
    yield made
    made.close()


def classes(verifier, *problems: tuple[str, list[str | None]]) -> list[list[int]]:
    """The classes of the answers to problems that are given with their gold."""
    golds = [gold for gold, _ in problems]
    answers = [answers for _, answers in problems]
    reasons = [verifier.verdicts([gold] * len(row), row) for gold, row in zip(golds, answers, strict=True)]
    return answer_classes(answers, reasons, verifier).tolist()


def test_equal_answers_are_one_class_however_they_are_written(verifier):
    assert classes(verifier, ("7", ["0.5", r"\frac{1}{2}", "7", "1/2", None, "x+1", "1+x", "7.0"])) == [
        [1, 1, 0, 1, -1, 2, 2, 0]
    ]


def test_problems_have_classes_of_their_own(verifier):
    found = classes(verifier, ("1", ["2", "3", "2"]), ("2", ["2", "3", "3"]), ("3", [None, None, None]))
    assert found == [[0, 1, 0], [0, 1, 1], [-1, -1, -1]]


def test_all_that_is_correct_is_one_class(verifier):
    # each equals the gold, and 0.5 does not equal 50
    assert classes(verifier, (r"50\%", [r"50\%", "50", "0.5", "51"])) == [[0, 0, 0, 1]]
    assert verifier.verdicts(["0.5"], ["50"]) == ["wrong"]


def test_answer_that_was_not_read_equals_only_itself(verifier):
    hostile = "9^{9^{9^{9}}}"
    found = answer_classes(
        [[hostile, hostile, "9^{9^{9^{8}}}", "4", "4.0"]],
        [["timeout", "timeout", "error", "wrong", "wrong"]],
        verifier,
    )
    assert found.tolist() == [[0, 0, 1, 2, 2]]


def test_pairs_are_compared_with_one_answer_of_each_problem_at_a_time():
    asked = []

    class Exact:
        """Answers equal golds that are written alike."""

        def verdicts(self, golds, answers):
            asked.append(list(zip(golds, answers, strict=True)))
            return ["correct" if gold == answer else "wrong" for gold, answer in zip(golds, answers, strict=True)]

    wrong = ["wrong"] * 3
    assert answer_classes([["a", "b", "c"], ["d", "d", "e"]], [wrong, wrong], Exact()).tolist() == [
        [0, 1, 2],
        [0, 0, 1],
    ]
    assert asked == [[("a", "b"), ("a", "c"), ("d", "e")], [("b", "c")], []]


def test_reward_finds_the_answers_that_are_classed():
    answers, reasons = MathVerifyReward(("last_number",)).verdicts(["it is 4", "no"], ["4", "4"])
    assert answers == ["4", None]
    assert reasons == ["correct", "no_answer"]
