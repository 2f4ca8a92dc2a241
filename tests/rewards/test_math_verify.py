import importlib
import logging
import pickle
import threading

import pytest

from trl_entropy.rewards import REWARDS, answers_of, last_number_reward, math_verify_reward


# What MATH has as solutions, bare as they stand there
MATH_SOLUTIONS = [
    "-50",
    "10,236",
    "0.35",
    r"\frac{3}{4}",
    r"\frac43",
    r"3\frac{1}{2}",
    r"11\sqrt{2}",
    r"\frac{\pi}{6}",
    r"\left( 3, \frac{\pi}{2} \right)",
    r"(6,31,-1)",
    r"[0,1) \cup (2,3]",
    r"x \in [-2,7]",
    "1,-2",
    "6 - 5i",
    "2k+2",
    "x^3+3x-6",
    "y = 2x + 3",
    r"3 \pm 2 \sqrt{2}",
    r"90^\circ",
    r"50\%",
    r"5.4 \text{ cents}",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"\text{(C)}",
    r"\text{Evelyn}",
    "52_8",
]


def grade(answer: str, solution: str) -> float | None:
    """The reward of one completion that boxes `answer`."""
    (reward,) = math_verify_reward([rf"Hence \boxed{{{answer}}}."], [solution])
    return reward


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Which part of a completion is the answer


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (r"\boxed{24}", 1.0),
        (r"\boxed{7+17}", 1.0),
        (r"\boxed{7+5+12}", 1.0),
        (r"\boxed{7+16}", 0.0),
        (r"First \boxed{23}, no, \boxed{24}.", 1.0),
        (r"First \boxed{24}, no, \boxed{23}.", 0.0),
        (r"\boxed{24} and \boxed{", 0.0),  # the last box counts, and it has no end
        (r"\boxed{24", 0.0),
        (r"\boxed{\frac{48}{2}", 0.0),
        (r"\boxed{\frac{48}{2}}", 1.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{ }", 0.0),
        (r"\boxed{?}", 0.0),
        ("24", 0.0),
        ("boxed{24}", 0.0),
        ("", 0.0),
    ],
)
def test_content_of_the_last_box_is_the_answer(completion, reward):
    assert math_verify_reward([completion], ["24"]) == [reward]


def test_last_message_of_a_conversation_is_graded():
    right = [{"role": "assistant", "content": r"\boxed{1}"}, {"role": "assistant", "content": r"\boxed{24}"}]
    assert math_verify_reward([right, right[:1]], ["24", "24"]) == [1.0, 0.0]


def test_every_completion_is_graded_against_its_own_solution():
    assert math_verify_reward([r"\boxed{1}", r"\boxed{2}", r"\boxed{2}"], ["1", "2", "1"]) == [1.0, 1.0, 0.0]


def test_completions_and_solutions_of_different_number_are_refused():
    with pytest.raises(ValueError, match="zip"):
        math_verify_reward([r"\boxed{1}", r"\boxed{2}"], ["1"])


# Solutions


@pytest.mark.parametrize("solution", MATH_SOLUTIONS)
def test_solution_equals_itself(solution):
    assert grade(solution, solution) == 1.0
    assert grade(solution, f"${solution}$") == 1.0
    assert grade(solution, rf"\boxed{{{solution}}}") == 1.0
    assert grade("12345", solution) == 0.0


@pytest.mark.parametrize(
    ("solution", "equal", "part"),
    [
        (r"\frac{1}{3}", r"\frac{2}{6}", "3"),
        ("2k+2", "2(k+1)", "2"),
        ("2", "4/2", "2k+2"),
        (r"(3, \pi/2)", r"\left(3, \frac{\pi}{2}\right)", "3"),
        ("6 - 5i", "-5i+6", "5"),
        (r"\text{Evelyn}", "Evelyn", r"\text{Eve}"),
    ],
)
def test_bare_latex_solution_counts_as_a_whole(solution, equal, part):
    assert grade(equal, solution) == 1.0
    assert grade(part, solution) == 0.0


@pytest.mark.parametrize(
    "solution", ["#### 1,000", "500 + 500 = <<500+500=1000>>1000\n#### 1,000", "#### 3 then\n#### 1000"]
)
def test_solution_after_four_hashes_is_read(solution):
    assert grade("1000", solution) == 1.0
    assert grade("1,000", solution) == 1.0
    assert grade("1", solution) == 0.0
    assert grade("500", solution) == 0.0


@pytest.mark.parametrize(
    "solution", ["$24$", "$$24$$", " $24$ ", r"\boxed{24}", r"So it is \boxed{24}, as said.", "24"]
)
def test_solution_in_dollars_or_in_a_box_is_read(solution):
    assert grade("24", solution) == 1.0
    assert grade("25", solution) == 0.0


# Equations


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("1=24", 0.0),
        ("24=1", 0.0),
        ("x=24", 1.0),
        ("4+20=24", 1.0),
        ("24=4+20", 1.0),
        ("4+21=24", 0.0),
        ("4+20=20+4=24", 1.0),
        ("4+20=1=24", 0.0),
        ("x=25", 0.0),
        ("=24", 1.0),
        ("=", 0.0),
        ("a=b", 0.0),
    ],
)
def test_every_side_with_a_number_must_equal_the_solution(answer, reward):
    assert grade(answer, "24") == reward


@pytest.mark.parametrize(
    ("answer", "solution", "reward"),
    [
        ("y = 2x+3", "y=2x+3", 1.0),
        ("y=2x+4", "y=2x+3", 0.0),
        ("2x+4", "y=2x+3", 0.0),
        ("x=24", "x=24", 1.0),
        ("24", "x=24", 1.0),
        ("25", "x=24", 0.0),
    ],
)
def test_solution_that_is_an_equation_is_compared_as_one(answer, solution, reward):
    assert grade(answer, solution) == reward


# Solutions that cannot be read


@pytest.mark.parametrize("solution", ["", "   ", "$$", "only words ####", "}{"])
def test_unreadable_solution_gives_no_reward(solution):
    assert grade("24", solution) is None
    assert math_verify_reward(["no box"], [solution]) == [None]


def test_unreadable_solution_is_warned_about_once(caplog):
    solutions = ["first ####", "24", "first ####", "second ####"]
    for box in ("24", "25"):
        assert math_verify_reward([rf"\boxed{{{box}}}"] * 4, solutions) == [None, float(box == "24"), None, None]
    assert warnings_in(caplog) == [
        "the solution 'first ####' is missing or cannot be read; only an identical text gets a reward",
        "the solution 'second ####' is missing or cannot be read; only an identical text gets a reward",
    ]


def test_readable_solution_is_not_warned_about(caplog):
    assert grade("not a number", "4242") == 0.0
    assert warnings_in(caplog) == []


# What TRL asks of a reward


@pytest.mark.parametrize("reward", [math_verify_reward, last_number_reward])
def test_reward_takes_what_trl_hands_over(reward):
    rewards = reward(
        prompts=["24="],
        completions=[r"\boxed{24}"],
        completion_ids=[[1, 2]],
        solution=["24"],
        difficulty=["easy"],
        trainer_state=None,
        log_extra=None,
        log_metric=print,
    )
    assert rewards == [1.0]
    assert type(rewards[0]) is float


def test_extracted_answers_are_logged():
    logged = []
    completions = [r"\boxed{4+20}", "none", r"a \boxed{} b"]
    math_verify_reward(completions, ["24"] * 3, log_extra=lambda *column: logged.append(column))
    last_number_reward(["it is 1,000.", "none"], ["1"] * 2, log_extra=lambda *column: logged.append(column))
    assert logged == [
        ("answer", ["4+20", "", ""]),
        ("verdict", ["correct", "no_answer", "no_answer"]),
        ("answer", ["1,000", ""]),
        ("verdict", ["wrong", "no_answer"]),
    ]


def test_answers_are_those_that_the_first_such_reward_reads():
    completions = [r"\boxed{4} or 5", "it is 6", [{"role": "assistant", "content": r"7 \boxed{8}"}], ""]
    assert answers_of(completions, [len, math_verify_reward]) == ["4", None, "8", None]
    assert answers_of(completions, [last_number_reward, math_verify_reward]) == ["5", "6", "8", None]


def test_answers_are_looked_for_anywhere_without_such_a_reward():
    completions = [r"\boxed{4} or 5", "the answer is 6. Not 7", "so 8\n#### 9", "10 and $11$", "none"]
    assert answers_of(completions, [len]) == ["4", "6", "9", "11", None]


@pytest.mark.parametrize("reward", [math_verify_reward, last_number_reward])
def test_reward_works_outside_the_main_thread(reward):
    found = []
    problem = r"\boxed{700+77}" if reward is math_verify_reward else "700+77 is 777"  # no other test has graded it
    thread = threading.Thread(target=lambda: found.extend(reward([problem, r"\boxed{778}"], ["777", "777"])))
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert found == [1.0, 0.0]


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_reward_is_found_at_its_dotted_path_and_can_be_pickled(name):
    reward = getattr(importlib.import_module("trl_entropy.rewards"), name)
    assert reward is REWARDS[name]
    assert reward.__name__ == name
    assert pickle.loads(pickle.dumps(reward)) is reward


# The last number


@pytest.mark.parametrize(
    ("completion", "solution", "reward"),
    [
        ("4 + 5 = 9", "9", 1.0),
        ("4 + 5 = 9.", "9", 1.0),
        ("It is 9, I think.", "9", 1.0),
        ("9, not 8", "9", 0.0),
        ("9, not 8", "8", 1.0),
        ("There are 1,000.", "1000", 1.0),
        ("There are 1,234,567 of them,", "1234567", 1.0),
        ("There are 1,000.", "0", 0.0),
        ("It is -5.", "-5", 1.0),
        ("It is -5.", "5", 0.0),
        ("It is 5.", "-5", 0.0),
        ("x=-7", "-7", 1.0),
        ("10 - 3", "3", 1.0),
        ("It is 3.14.", "3.14", 1.0),
        ("It is 3.14.", "14", 0.0),
        ("It is 2.50", "2.5", 1.0),
        ("It is -.5", r"-\frac{1}{2}", 1.0),
        ("It is .5", "0.5", 1.0),
        ("It is .5", "5", 0.0),
        ("It is 9", "#### 9", 1.0),
        ("It is 9", "$9$", 1.0),
        ("no number", "9", 0.0),
        ("-.,", "9", 0.0),
        ("", "9", 0.0),
        ("It is 9", "", None),
    ],
)
def test_last_number_is_the_answer(completion, solution, reward):
    assert last_number_reward([completion], [solution]) == [reward]


def test_last_number_of_the_last_message_is_the_answer():
    conversation = [{"role": "assistant", "content": "9"}, {"role": "assistant", "content": "so 8"}]
    assert last_number_reward([conversation, conversation[:1]], ["8", "8"]) == [1.0, 0.0]
