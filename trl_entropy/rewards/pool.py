"""Start the grading processes and talk to them, in the parent process."""

import os
import subprocess
import sys
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection


PATIENCE = 5.0  # seconds for the server to end its workers
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # in each worker


def default_workers() -> int:
    """This process's share of the cores, divided among the ranks of its machine, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class Pool:
    """
    Processes that grade pairs of gold and answer, each pair within a hard deadline.

    Args:
        workers (`int`):
            Number of processes that grade at the same time.
        deadline (`float`):
            Seconds per pair, after which its process is killed and replaced. A second try has the same time.
        batch_deadline (`float`):
            Seconds for all pairs of one call; pairs that are not graded by then time out.
        grader (`str`, *optional*, defaults to `"trl_entropy.rewards.server"`):
            Module whose `prepared()` returns the function that gives verdicts; by default computer algebra.

    Raises `RuntimeError` if the processes cannot start or end while they grade, and on a system without `os.fork`.
    """

    def __init__(
        self, workers: int, deadline: float, batch_deadline: float, grader: str = "trl_entropy.rewards.server"
    ):
        if not hasattr(os, "fork"):
            raise RuntimeError(
                "a deadline per answer needs os.fork, which Linux and macOS have but this system does not"
            )
        self.owner = os.getpid()
        ours, theirs = Pipe()
        self._connection = ours
        numbers = f"{theirs.fileno()}, {self.owner}, {workers}, float('{deadline}'), float('{batch_deadline}')"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from trl_entropy.rewards.server import main; main({numbers}, {grader!r})"],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._finalizer = weakref.finalize(self, _stop, self.owner, self._connection, self._process)
        self.server = self._receive()

    def grade(self, pairs: list[tuple[str, str]]) -> list[str]:
        """A verdict per pair of gold and answer."""
        try:
            self._connection.send(pairs)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._gone() from error
        return self._receive()

    def close(self) -> None:
        """End the processes."""
        self._finalizer()

    def _receive(self):
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._gone() from error

    def _gone(self) -> RuntimeError:
        self.close()
        return RuntimeError(
            f"the grading process ended with status {self._process.returncode}; its own message is above. If it was "
            "killed because memory ran out, lower grading_workers"
        )


def _stop(owner: int, connection: Connection, process: subprocess.Popen) -> None:
    connection.close()
    if os.getpid() != owner:  # in a fork of the owner, which must not end the owner's processes
        process.returncode = 0
        return
    process.terminate()  # it ends its workers first
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
