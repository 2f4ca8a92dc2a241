"""The processes that grade: deadlines, threads, forks, and that none is left behind."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from processes import TESTS, run_script

import trl_entropy.rewards.verifier
from trl_entropy.rewards import (
    REASONS,
    LastNumberReward,
    MathVerifyReward,
    RelativeLengthReward,
    Verifier,
    math_verify_reward,
    relative_length_reward,
)
from trl_entropy.rewards.answers import SOURCES
from trl_entropy.rewards.pool import Pool, default_workers


REPOSITORY = Path(__file__).parent.parent.parent
DEADLINE = 0.5  # seconds
TOWER = "9^{9^{9^{9}}}"  # computer algebra would not end
# Power towers, factorials and integers of a hundred million digits
HOSTILE = [
    TOWER,
    "2^{2^{2^{2^{2^{3}}}}}",
    "k^{9^{9^{9}}}",
    "10^{10^{8}}+1",
    "(10^{10})!",
    "10^{10^{10}}",
    "(((9!)!)!)!",
]
DEEP = ["(" * 400 + "4" + ")" * 400, "{" * 400 + "4" + "}" * 400, "-" * 1000 + "4", "1" + "+1" * 900]
# A pair that needs computer algebra, and its verdict
EXPANDED = [("2k+2", "2(k+1)", "correct"), ("2k+2", "2(k+2)", "wrong"), ("24", "4!", "correct"), ("24", "5!", "wrong")]
PATHS = os.pathsep.join([str(REPOSITORY), str(TESTS)])
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def verifier():
    shared = Verifier(DEADLINE, workers=2)
    yield shared
    shared.close()


@pytest.fixture
def fresh(monkeypatch):
    """A verifier with its own processes and an empty cache; a quick grader is in them."""
    monkeypatch.setattr(trl_entropy.rewards.verifier, "Pool", partial(Pool, grader="quick_grader"))
    made = []

    def make(*arguments, **options) -> Verifier:
        made.append(Verifier(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def graded(monkeypatch) -> list[list[tuple[str, str]]]:
    """The lists of pairs that reach the processes."""
    calls, grade = [], Pool.grade
    monkeypatch.setattr(Pool, "grade", lambda pool, pairs: calls.append(list(pairs)) or grade(pool, pairs))
    return calls


@pytest.fixture
def no_pool(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a pool was started")

    monkeypatch.setattr(trl_entropy.rewards.verifier, "Pool", refuse)


def expanded(verifier: Verifier) -> list[str]:
    return verifier.verdicts([gold for gold, _, _ in EXPANDED], [answer for _, answer, _ in EXPANDED])


EXPANDED_VERDICTS = [verdict for _, _, verdict in EXPANDED]


# Deadline


def test_hostile_answers_cost_their_deadline_and_the_others_are_graded(verifier):
    golds = ["24", "2k+2"] * len(HOSTILE)
    answers = [answer for hostile in HOSTILE for answer in (hostile, "k+k+2")]
    verdicts = verifier.verdicts(golds, answers)
    assert verdicts[0] == "timeout"
    assert set(verdicts[::2]) <= {"timeout", "error", "wrong"}
    assert verdicts[1::2] == ["correct"] * len(HOSTILE)
    assert expanded(verifier) == EXPANDED_VERDICTS


def test_hostile_gold_is_no_reason_to_hang(verifier):
    assert verifier.verdicts([TOWER, "24"], ["24", "23+1"]) == ["timeout", "correct"]


def test_hostile_answers_get_no_reward(caplog):
    reward = MathVerifyReward(deadline=DEADLINE, workers=2)
    logged = {}
    completions = [rf"\boxed{{{answer}}}" for answer in ("4!", TOWER)]
    rewards = reward(completions, ["24", "24"], log_metric=lambda name, value: logged.update({name: value}))
    assert rewards == [1.0, 0.0]
    shares = {reason: logged[f"rewards/math_verify_reward/{reason}"] for reason in REASONS}
    assert {reason: share for reason, share in shares.items() if share} == {"correct": 0.5, "timeout": 0.5}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    reward.verifier.close()


def test_answer_that_ends_its_process_is_an_error_and_the_others_are_graded(fresh):
    answers = ["k+1-1", "k+die", "k", "2k+die", "k+0"]
    assert fresh(10.0, workers=2).verdicts(["k"] * 5, answers) == ["correct", "error", "correct", "error", "correct"]


# Threads


def test_verdicts_come_outside_the_main_thread(verifier):
    found = []
    thread = threading.Thread(target=lambda: found.extend(verifier.verdicts(["x+1", "x+1"], ["1+x", "2+x"])))
    thread.start()
    thread.join(timeout=30)
    assert found == ["correct", "wrong"]


def test_threads_at_once_each_get_their_own_verdicts(fresh):
    shared, found, start = fresh(10.0, workers=2), {}, threading.Barrier(4)

    def grade(number: int) -> None:
        start.wait()
        answers = [f"{number}k+{i}" for i in range(6)]
        found[number] = shared.verdicts([f"k+{i % 2}" for i in range(6)], answers)

    threads = [threading.Thread(target=grade, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    right = ["correct", "correct", "wrong", "wrong", "wrong", "wrong"]
    assert found == {number: right if number == 1 else ["wrong"] * 6 for number in range(4)}


def test_pool_outlives_the_thread_that_started_it(fresh, graded):
    shared = fresh(10.0, workers=1)
    thread = threading.Thread(target=expanded, args=(shared,))
    thread.start()
    thread.join(timeout=30)
    assert shared.verdicts(["k+1"], ["k+2-1"]) == ["correct"]
    assert [len(pairs) for pairs in graded] == [len(EXPANDED), 1]


# Order and number of processes


def test_order_and_number_of_processes_do_not_matter(verifier):
    rows = [
        (gold, answer) for gold in ("k+1", r"\sqrt{8}", "(1,x)", "24") for answer in ("1+k", r"2\sqrt{2}", "(1,x)")
    ]
    rows += [("24", "2^{3}\\cdot 3"), ("x", ")("), ("x", None), ("", "24"), ("(1,x)", r"\left(\frac{2}{2},x\right)")]

    def graded(by: Verifier, order: list[int]) -> list[str]:
        verdicts = by.verdicts([rows[i][0] for i in order], [rows[i][1] for i in order])
        return [verdict for _, verdict in sorted(zip(order, verdicts, strict=True))]

    forwards = list(range(len(rows)))
    expected = graded(verifier, forwards)
    assert set(expected) == {"correct", "wrong", "no_answer", "unparsable_answer", "unparsable_gold"}
    for workers, order in ((1, forwards[::-1]), (3, forwards[1::2] + forwards[::2])):
        with closing(Verifier(10.0, workers=workers)) as other:
            assert graded(other, order) == expected


@pytest.mark.parametrize("ranks", [1, 2, 64])
def test_ranks_of_a_machine_share_its_cores(monkeypatch, ranks):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    assert default_workers() == {1: 8, 2: 6, 64: 1}[ranks]


# What is graded once


def test_plain_answers_start_no_process(fresh, no_pool):
    golds = ["24", "24", "1,000", r"\frac{1}{2}", r"\text{Friday}", "2k+2", "12:30", "12_8", "50\\%", "24", "24", ""]
    answers = ["24", "25", "1000", "0.5", "Monday", r"2k + 2.", "12:31", "10_{10}", "0.5", None, "x" * 2001, "24"]
    assert fresh().verdicts(golds, answers) == [
        "correct",
        "wrong",
        *["correct"] * 2,
        "wrong",
        "correct",
        "wrong",
        *["correct"] * 2,
        "no_answer",
        "unparsable_answer",
        "unparsable_gold",
    ]


def test_distinct_pairs_are_graded_once(fresh, graded):
    shared = fresh(10.0, workers=2)
    assert shared.verdicts(["k+1"] * 4, ["1+k", "2+k", "1+k", "2+k"]) == ["correct", "wrong"] * 2
    assert graded == [[("k+1", "1+k"), ("k+1", "2+k")]]
    assert shared.verdicts(["k+1", "k+2", "k+1"], ["2+k", "2+k", "1+k"]) == ["wrong", "correct", "correct"]
    assert graded[1:] == [[("k+2", "2+k")]]
    assert shared.verdicts(["k+1"], ["2+k"]) == ["wrong"]
    assert len(graded) == 2


def test_verdicts_are_kept_up_to_the_size_of_the_cache(fresh, graded):
    shared = fresh(10.0, workers=1, cache_size=2)
    for number in (1, 2, 1, 3):
        assert shared.verdicts(["k+1"], [f"{number}+k"]) == ["correct" if number == 1 else "wrong"]
    assert [pairs[0][1] for pairs in graded] == ["1+k", "2+k", "3+k"]
    assert shared.verdicts(["k+1"] * 2, ["1+k", "3+k"]) == ["correct", "wrong"]  # 2 was asked for longest ago
    assert len(graded) == 3
    assert shared.verdicts(["k+1"], ["2+k"]) == ["wrong"]
    assert len(graded) == 4


@pytest.mark.parametrize("size", [0, 1, 3])
def test_more_pairs_at_once_than_the_cache_holds_are_all_graded(fresh, size):
    assert expanded(fresh(10.0, workers=1, cache_size=size)) == EXPANDED_VERDICTS


def test_rewards_with_the_same_settings_share_processes_and_cache():
    assert (
        MathVerifyReward().verifier is MathVerifyReward(answer_from=["hashes"]).verifier is LastNumberReward().verifier
    )
    assert MathVerifyReward(deadline=2.0).verifier is not MathVerifyReward().verifier


# Several golds


@pytest.mark.parametrize(
    ("golds", "answer", "verdict"),
    [
        (["24", "25"], "25", "correct"),
        (["24", "k+1"], "1+k", "correct"),
        (["24", "25"], "26", "wrong"),
        (("24", "25"), "24", "correct"),
        (["24"], "24", "correct"),
        ([], "24", "unparsable_gold"),
        ([], None, "unparsable_gold"),
        (["", ""], "24", "unparsable_gold"),
        (["", "24"], "24", "correct"),
        (["", "24"], "25", "wrong"),
        (["24", "25"], None, "no_answer"),
        (["", "24"], None, "no_answer"),
        (["24", "k+1"], "24+", "unparsable_answer"),
        (["k+1", r"\text{Friday}"], ")(", "unparsable_answer"),
        (["24", "k"], TOWER + "k^0", "timeout"),
    ],
)
def test_answer_needs_to_equal_one_of_several_golds(verifier, golds, answer, verdict):
    assert verifier.verdicts([golds], [answer]) == [verdict]


@pytest.mark.parametrize(
    ("solution", "reward"),
    [
        (["23", r"\boxed{24}"], 1.0),
        (["23", "#### 24"], 1.0),
        (("23", "$24$"), 1.0),
        (["23", "25"], 0.0),
        (["23", None], 0.0),
        ([None, 24], 1.0),
        (24, 1.0),
        (24.0, 1.0),
        ([], None),
        ([None], None),
        (None, None),
    ],
)
def test_cell_of_the_solution_column_may_hold_several_solutions(solution, reward):
    assert math_verify_reward([r"\boxed{24}"], [solution]) == [reward]


def test_as_many_golds_as_answers_are_needed(verifier):
    with pytest.raises(ValueError, match="zip"):
        verifier.verdicts(["1", "2"], ["1"])


def test_no_answers_have_no_verdicts(fresh, no_pool):
    assert fresh().verdicts([], []) == []
    assert fresh().self_check([]) == []
    assert math_verify_reward([], []) == []


# Odd inputs


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{24}" + "x" * 2**20,
        "x" * 2**20 + r"\boxed{24}",
        "{" * 2**20 + r"\boxed{24}",
        r"\boxed{" * 2**17 + r"\boxed{24}",
    ],
    ids=["after", "before", "braces", "boxes"],
)
def test_long_completion_is_read(completion):
    assert math_verify_reward([completion], ["24"]) == [1.0]


@pytest.mark.parametrize(
    "answer",
    [
        "4" * 2**20,
        "\\sqrt{" * 300 + "4" + "}" * 300,
        "\\frac{1}{" * 200 + "4" + "}" * 200,
        "\x00\x01 4",
        "4\x07+1",
        "\ud800",
        "4\udc80+\udfff",
        "\U0001f600",
        "\u0664",  # an Arabic four
        "\uff14+1",
        "^",
        "_",
        "&",
        "\\",
        "%",
        r"\frac",
        r"\frac{1}",
        r"\frac{1}{0}",
        r"\begin{pmatrix}",
        r"\text{",
        "\n",
    ],
    ids=lambda answer: ascii(answer[:12]),
)
def test_odd_answer_scores_nothing_and_the_next_is_graded(verifier, answer):
    assert verifier.verdicts(["24", "k+1"], [answer, "1+k"]) in (
        [verdict, "correct"] for verdict in ("wrong", "no_answer", "unparsable_answer", "timeout", "error")
    )


def test_deeply_nested_answers_score_nothing_and_the_next_are_graded(verifier):
    verdicts = verifier.verdicts(["24", "k+3"] * len(DEEP), [answer for deep in DEEP for answer in (deep, "3+k")])
    assert set(verdicts[::2]) <= {"wrong", "unparsable_answer", "timeout", "error"}
    assert verdicts[1::2] == ["correct"] * len(DEEP)


@pytest.mark.parametrize("solution", ["\ud800", "\x00", "{" * 5000, "\\sqrt{" * 500, r"\boxed{", r"\frac{1}{0}", "^"])
def test_odd_solution_gives_no_reward(solution):
    assert math_verify_reward([r"\boxed{24}"], [solution]) == [None]


def test_message_without_text_has_no_answer():
    assert math_verify_reward([[{"role": "assistant", "content": None}]], ["24"]) == [0.0]


# Settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deadline": 0}, "grading_deadline must be above 0 seconds, got 0"),
        ({"deadline": -1.0}, "grading_deadline must be above 0 seconds, got -1.0"),
        ({"deadline": float("nan")}, "grading_deadline must be above 0 seconds, got nan"),
        ({"batch_deadline": 0}, "grading_batch_deadline must be above 0 seconds, got 0"),
        ({"workers": 0}, "grading_workers must be a whole number >= 1, got 0"),
        ({"workers": -2}, "grading_workers must be a whole number >= 1, got -2"),
    ],
)
@pytest.mark.parametrize("made", [Verifier, MathVerifyReward])
def test_wrong_setting_is_refused(made, arguments, message):
    with pytest.raises(ValueError, match="grading_") as refused:
        made(**arguments)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("answer_from", "got"),
    [(["boxes"], "['boxes']"), ("boxes", "['boxes']"), (["boxed", "last"], "['last']"), ([], "none"), ((), "none")],
)
def test_unknown_source_is_refused(answer_from, got):
    with pytest.raises(ValueError, match="answer_from") as refused:
        MathVerifyReward(answer_from)
    assert str(refused.value) == (f"answer_from takes one or more of {', '.join(SOURCES)}; got {got}")


def test_pickled_verifier_has_its_settings_and_processes_of_its_own(verifier, graded):
    expanded(verifier)
    copy = pickle.loads(pickle.dumps(verifier))
    assert (copy.deadline, copy.workers, copy.cache_size) == (DEADLINE, 2, 2**16)
    assert copy is not verifier
    before = len(graded)
    assert expanded(copy) == EXPANDED_VERDICTS
    assert len(graded) == before + 1
    copy.close()


def test_pickled_rewards_have_their_settings():
    reward = MathVerifyReward(["hashes", "last_number"], deadline=7.0, workers=1)
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.answer_from == ("hashes", "last_number")
    assert (copy.verifier.deadline, copy.verifier.workers) == (7.0, 1)
    bonus = pickle.loads(pickle.dumps(RelativeLengthReward(0.5, 100, -0.1, 0.2, reward)))
    assert (bonus.accuracy, bonus.length_scale, bonus.low, bonus.high) == (0.5, 100, -0.1, 0.2)
    assert bonus.correct.answer_from == ("hashes", "last_number")


@pytest.mark.parametrize("name", ["MathVerifyReward", "LastNumberReward", "RelativeLengthReward"])
def test_reward_of_any_class_can_be_pickled(name):
    made = getattr(trl_entropy.rewards, name)
    assert type(pickle.loads(pickle.dumps(made()))) is made


def test_closed_verifier_works_again(fresh):
    shared = fresh(10.0, workers=1)
    shared.close()
    assert expanded(shared) == EXPANDED_VERDICTS
    shared.close()
    shared.close()
    assert shared.verdicts(["k+1"], ["k+2-1"]) == ["correct"]


# Processes that come and go


def parents() -> dict[int, int]:
    """The parent of every process that runs; one that waits only to be collected does not run."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            found[int(stat.parent.name)] = int(parent)
    return found


def children(process: int) -> list[int]:
    return [child for child, parent in parents().items() if parent == process]


def processor_time(process: int) -> int:
    """In clock ticks."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def within(seconds: float, holds) -> bool:
    last = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > last:
            return False
        time.sleep(0.02)
    return True


def gone(processes: list[int]) -> bool:
    return within(5.0, lambda: not parents().keys() & set(processes))


@linux
def test_idle_worker_that_is_killed_is_replaced(fresh):
    shared = fresh(10.0, workers=2)
    assert expanded(shared) == EXPANDED_VERDICTS
    workers = children(shared._pool.server)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert gone(workers)
    assert shared.verdicts(["k+1"] * 4, [f"{i}+k" for i in range(4)]) == ["wrong", "correct", "wrong", "wrong"]
    assert len(children(shared._pool.server)) == 2


@linux
def test_busy_worker_that_is_killed_costs_nothing(fresh):
    shared = fresh(20.0, workers=1)
    expanded(shared)
    (worker,) = children(shared._pool.server)
    os.kill(worker, signal.SIGSTOP)
    timer = threading.Timer(1.0, os.kill, (worker, signal.SIGKILL))
    timer.start()
    assert shared.verdicts(["k+1"], ["1+k"]) == ["correct"]


@linux
def test_stall_costs_a_second_try_and_not_the_verdict(fresh):
    shared = fresh(1.0, workers=2)
    expanded(shared)
    for worker in children(shared._pool.server):
        os.kill(worker, signal.SIGSTOP)
    assert shared.verdicts(["2k+2"], ["k+1+k+1"]) == ["correct"]


def test_timeout_is_not_remembered(fresh, graded):
    shared = fresh(0.5, workers=1)
    for _ in range(2):
        assert shared.verdicts(["24", "k+1"], [TOWER, "1+k"]) == ["timeout", "correct"]
    assert graded == [[("24", TOWER), ("k+1", "1+k")], [("24", TOWER)]]


def test_no_deadline_is_a_deadline(fresh):
    shared = fresh(float("inf"), workers=1, batch_deadline=float("inf"))
    assert expanded(shared) == EXPANDED_VERDICTS


def test_batch_ends_at_its_own_deadline_however_many_answers_hang(fresh):
    shared = fresh(1.0, workers=1, batch_deadline=4.0)
    expanded(shared)
    golds = ["k+1", *["24"] * 200]
    start = time.monotonic()
    verdicts = shared.verdicts(golds, ["1+k", *(f"{TOWER}+{number}" for number in range(200))])
    assert time.monotonic() - start < 8.0
    assert verdicts == ["correct", *["timeout"] * 200]
    assert expanded(shared) == EXPANDED_VERDICTS


@linux
def test_server_that_is_killed_is_an_error_once(fresh):
    shared = fresh(10.0, workers=2)
    assert expanded(shared) == EXPANDED_VERDICTS
    server = shared._pool.server
    processes = [server, *children(server)]
    assert len(processes) == 3
    os.kill(server, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the grading process ended with status -9.*grading_workers"):
        shared.verdicts(["k+1"], ["1+k"])
    assert gone(processes)
    assert shared.verdicts(["k+1"], ["1+k"]) == ["correct"]


@linux
def test_closing_ends_the_processes(fresh):
    shared = fresh(10.0, workers=2)
    expanded(shared)
    processes = [shared._pool.server, *children(shared._pool.server)]
    shared.close()
    assert gone(processes)


@linux
def test_verifier_that_is_dropped_ends_its_processes():
    shared = Verifier(10.0, workers=2)
    expanded(shared)
    processes = [shared._pool.server, *children(shared._pool.server)]
    del shared
    assert gone(processes)


QUICK = """
import trl_entropy.rewards.verifier
from functools import partial
from trl_entropy.rewards.pool import Pool

trl_entropy.rewards.verifier.Pool = partial(Pool, grader="quick_grader")
"""
PROGRAM = f"""{QUICK}
import os, signal, sys, threading
from trl_entropy.rewards import Verifier

how = sys.argv[1]
verifier = Verifier(60.0, workers=2)
assert verifier.verdicts(["k+1", "k+1"], ["1+k", "2+k"]) == ["correct", "wrong"]
print(verifier._pool.server, flush=True)
sys.stdin.readline()
if how == "raises":
    raise SystemError
if how == "busy":
    verifier.verdicts(["24"] * 2, ["9^(9^(9^9))", "8^(9^(9^9))"])
if how == "left":
    threading.Thread(target=verifier.verdicts, args=(["24"], ["9^(9^(9^9))"]), daemon=True).start()
    sys.stdin.readline()
if how == "idle":
    sys.stdin.readline()
"""


@pytest.fixture
def program():
    """A program that has started two workers, and the processes of its verifier."""
    started = []

    def start(how: str) -> tuple[subprocess.Popen, list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PATHS},
        )
        started.append(process)
        server = int(process.stdout.readline())
        processes = [server, *children(server)]
        assert len(processes) == 3
        return process, processes

    yield start
    for process in started:
        process.kill()
        process.communicate()


def busy(processes: list[int]) -> bool:
    """Whether a worker has computed for a fifth of a second."""
    before = {process: processor_time(process) for process in processes[1:]}
    needed = 0.2 * os.sysconf("SC_CLK_TCK")
    return within(10.0, lambda: any(processor_time(each) - ticks >= needed for each, ticks in before.items()))


@linux
@pytest.mark.parametrize(("how", "status"), [("exits", 0), ("raises", 1)])
def test_program_that_ends_leaves_no_process(program, how, status):
    process, processes = program(how)
    _, errors = process.communicate("\n", timeout=10)
    assert process.returncode == status
    assert ("SystemError" in errors) == (how == "raises")
    assert "weakref" not in errors
    assert gone(processes)


@linux
def test_program_that_is_killed_while_a_worker_is_busy_leaves_no_process(program):
    process, processes = program("busy")
    process.stdin.write("\n")
    process.stdin.flush()
    assert busy(processes)
    process.kill()
    assert gone(processes)


@linux
def test_program_that_is_killed_while_idle_leaves_no_process(program):
    process, processes = program("idle")
    process.kill()
    assert gone(processes)


@linux
def test_program_that_ends_while_a_worker_is_busy_leaves_no_process(program):
    process, processes = program("left")
    process.stdin.write("\n")
    process.stdin.flush()
    assert busy(processes)
    process.communicate("\n", timeout=10)
    assert gone(processes)


# Start methods of multiprocessing


CHILD = rf"""{QUICK}
import json, multiprocessing, os, sys, warnings
from trl_entropy.rewards import math_verify_reward
from trl_entropy.rewards.math_verify import _math_verify

COMPLETIONS = [r"\boxed{{1+k}}", r"\boxed{{2+k}}", r"\boxed{{24}}"]


def grade(found, solution):
    rewards = math_verify_reward(COMPLETIONS, [solution] * 3)
    found.put([rewards, os.getpid(), _math_verify.verifier._pool.server])


def main():
    warnings.simplefilter("error")
    mine = math_verify_reward(COMPLETIONS, ["k+1"] * 3)
    server = _math_verify.verifier._pool.server
    method = multiprocessing.get_context(sys.argv[1])
    found = method.Queue()
    children = [method.Process(target=grade, args=(found, solution)) for solution in ("k+1", "k+2")]
    for child in children:
        child.start()
    theirs = sorted(found.get(timeout=60) for child in children)
    for child in children:
        child.join()
    again = math_verify_reward(COMPLETIONS, ["k+2"] * 3)
    same = server == _math_verify.verifier._pool.server
    print(json.dumps({{"mine": mine, "theirs": theirs, "again": again, "server": server, "same": same}}))


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_child_processes_grade_with_processes_of_their_own(tmp_path, method):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(script), method],
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mine"] == [1.0, 0.0, 0.0]
    assert [rewards for rewards, _, _ in found["theirs"]] == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert found["again"] == [0.0, 1.0, 0.0]
    assert found["same"]
    servers = [found["server"], *(server for _, _, server in found["theirs"])]
    assert len(set(servers)) == 3
    if Path("/proc/self/stat").exists():
        assert gone(servers)


# Two ranks


RANK = r"""
import json, sys
from pathlib import Path

import torch
from accelerate import PartialState
from trl_entropy.rewards import math_verify_reward, relative_length_reward

state = PartialState(cpu=True)
rows = json.loads(Path(sys.argv[1]).read_text())
share = len(rows["solution"]) // state.num_processes
mine = {name: column[state.process_index * share :][:share] for name, column in rows.items()}
mine["completion_ids"] = [[0] * length for length in mine.pop("lengths")]
found = {
    "right": math_verify_reward(**mine),
    "bonus": relative_length_reward(**mine),
}
Path(sys.argv[2], f"{state.process_index}.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def test_group_that_is_split_over_two_ranks_gets_the_bonus_of_the_whole_group(tmp_path):
    rows = {
        "prompts": ["a", "a", "b", "a", "a", "b"],  # each rank has three rows
        "completions": [rf"\boxed{{{answer}}}" for answer in ("1+k", "k+1", "24", "2+k-1", "k", "23+2")],
        "solution": ["k+1", "k+1", "24", "k+1", "k+1", "24"],
        "lengths": [100, 200, 50, 600, 700, 60],
    }
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rank.py").write_text(RANK)
    done = run_script(tmp_path / "rank.py", tmp_path / "rows.json", tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    ids = [[0] * length for length in rows.pop("lengths")]
    # Group a: 3 of 4 are right, of 300 tokens on average, so (300 - length) / 500; in b only one half is right
    assert first["bonus"] + second["bonus"] == pytest.approx([0.4, 0.2, 0.0, -0.5, 0.0, 0.0], abs=1e-12)
    assert first["bonus"] + second["bonus"] == relative_length_reward(completion_ids=ids, **rows)
    assert first["right"] + second["right"] == math_verify_reward(**rows) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_system_without_fork_is_refused_with_a_reason(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(RuntimeError, match=r"needs os\.fork, which Linux and macOS have"):
        Pool(1, 1.0, 60.0)
