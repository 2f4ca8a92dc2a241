"""
The grading process: it loads math-verify, forks workers, and kills a worker that exceeds its deadline.

The parent starts it as a new program, so it inherits no state of the parent (threads, CUDA, locks, `__main__`). It
computes nothing itself and therefore always answers: neither a thread nor a signal handler in Python could stop
big-integer arithmetic, which holds the interpreter.
"""

import gc
import importlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait


MEMORY = 4 * 2**30  # bytes of address space per worker
# First calls are slow: these warm up the parser and sympy before the forks
WARM_UP = (
    *(r"23\pi", r"9\sqrt{7}+4", r"\frac{5\sqrt{11}}{8}", r"17 \sqrt{3} + 5", "3^{7}-2", r"\frac{13+7b}{24}", "8-11i"),
    *("x^2+5x-14", "(x-2)(x+7)", "y=5x+9", r"x \leq 8", r"x \in [-5,9]", "m(m+2)", r"\tan 5z", r"\log_3 7"),
    *("(5,-8)", r"(7,\frac{\pi}{9})", r"(-\infty,4) \cup (11,\infty)", "[0,13)", "7,-9", r"\{4\pm\sqrt{13},-7\}"),
    *(r"\begin{pmatrix} 9 \\ -4 \end{pmatrix}", r"\begin{pmatrix} 5 & 8 \\ 9 & 7 \end{pmatrix}", r"17 \text{ cm}"),
)
LONGEST_ALARM = 1e6  # seconds; the system accepts no more
PATIENCE = 1.0  # seconds between two checks whether the parent is still alive


def main(channel: int, parent: int, workers: int, deadline: float, batch_deadline: float, grader: str) -> None:
    """
    Answer lists of (gold, answer) with lists of verdicts, until the parent closes the channel or ends.

    `prepared()` in the module `grader` returns the function that gives verdicts.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the parent is done: end the workers too
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    verdict = importlib.import_module(grader).prepared()
    gc.collect()
    gc.freeze()
    connection = Connection(channel)
    pool = WorkerPool(verdict, workers, deadline, batch_deadline, parent)
    connection.send(os.getpid())
    try:
        while True:
            while not connection.poll(PATIENCE):
                if os.getppid() != parent:
                    return
            connection.send(pool.grade(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        pool.close()


def prepared() -> Callable[[str, str], str]:
    """The function for verdicts by computer algebra, loaded and warmed up before the forks."""
    logging.disable(logging.WARNING)  # math-verify warns that it has no time limit: here it needs none
    from .algebra import algebraic_verdict

    for gold, answer in zip(WARM_UP, WARM_UP[1:] + WARM_UP[:1], strict=True):
        algebraic_verdict(gold, answer)
        algebraic_verdict(gold, rf"\frac{{2 \cdot ({gold})}}{{2}}")
    return algebraic_verdict


class Worker:
    """A forked process that grades one pair at a time."""

    def __init__(self, verdict, deadline: float, others: list["Worker"]):
        self.connection, theirs = Pipe()
        self.deadline = deadline
        self.process = os.fork()
        if self.process == 0:
            for other in others:
                other.connection.close()
            self.connection.close()
            _work(verdict, theirs, deadline)
        theirs.close()

    def submit(self, number: int, pair: tuple[str, str], end: float) -> None:
        self.number, self.gold = number, pair[0]
        self.due = min(time.monotonic() + self.deadline, end)
        self.connection.send(pair)

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        self.connection.close()


class WorkerPool:
    """Workers that share the pairs among them."""

    def __init__(self, verdict, workers: int, deadline: float, batch_deadline: float, parent: int):
        self.verdict, self.size, self.parent = verdict, workers, parent
        self.deadline, self.batch_deadline = deadline, batch_deadline
        self.workers: list[Worker] = []

    def grade(self, pairs: list[tuple[str, str]]) -> list[str]:
        """
        A verdict per pair: `timeout` if it exceeds the deadline, `error` if it ended its worker.

        Both only count on the second try, by a new worker: the machine may have stalled, or something else may have
        killed the first worker. Pairs that are not graded at the end of the batch time out.
        """
        end = time.monotonic() + self.batch_deadline
        verdicts = ["timeout"] * len(pairs)
        tried: set[int] = set()
        waiting: dict[str, deque[int]] = {}
        for number, (gold, _) in enumerate(pairs):
            waiting.setdefault(gold, deque()).append(number)
        while len(self.workers) < min(self.size, len(pairs)):
            self._spawn()
        idle, busy = self.workers[: len(pairs)], {}
        while waiting or busy:
            while idle and waiting and time.monotonic() < end:
                worker = idle.pop()
                number = _next(waiting, getattr(worker, "gold", None))
                if number in tried:
                    worker = self._replace(worker)
                try:
                    worker.submit(number, pairs[number], end)
                except BrokenPipeError:  # it was killed from outside
                    worker = self._replace(worker)
                    worker.submit(number, pairs[number], end)
                busy[worker.connection] = worker
            if not busy:
                break
            first_due = min(worker.due for worker in busy.values()) - time.monotonic()
            failed = {}
            for connection in wait(list(busy), max(0.0, min(first_due, PATIENCE))):
                worker = busy.pop(connection)
                try:
                    verdicts[worker.number] = connection.recv()
                    idle.append(worker)
                except (EOFError, ConnectionResetError):
                    failed[worker] = "error"
            now = time.monotonic()
            for worker in [worker for worker in busy.values() if worker.due <= now]:
                del busy[worker.connection]
                failed[worker] = "timeout"
            for worker, verdict in failed.items():
                verdicts[worker.number] = verdict
                if worker.number not in tried:
                    tried.add(worker.number)
                    waiting.setdefault(worker.gold, deque()).append(worker.number)
                idle.append(self._replace(worker))
            if os.getppid() != self.parent:
                raise EOFError
        return verdicts

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    def _spawn(self) -> Worker:
        worker = Worker(self.verdict, self.deadline, self.workers)
        self.workers.append(worker)
        return worker

    def _replace(self, worker: Worker) -> Worker:
        self.workers.remove(worker)
        worker.kill()
        return self._spawn()


def _next(waiting: dict[str, deque[int]], gold: str | None) -> int:
    """The next pair, if possible with the gold that the worker has already parsed."""
    gold = gold if gold in waiting else next(iter(waiting))
    number = waiting[gold].popleft()
    if not waiting[gold]:
        del waiting[gold]
    return number


def _work(verdict, connection: Connection, deadline: float) -> None:
    _limit_memory()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The default action ends the process even while Python cannot run: the last resort if the server is gone
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    code = 1
    try:
        while True:
            pair = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, min(deadline + 1, LONGEST_ALARM))
            answer = verdict(*pair)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 0
    finally:  # a forked process must not run the server's exit handlers
        os._exit(code)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        allowed = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
