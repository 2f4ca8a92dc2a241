"""The parent's side of the grading processes."""

import os
import subprocess
import sys
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection


PATIENCE = 5.0  # seconds for the server to end its workers
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of each worker


def default_workers() -> int:
    """The cores that this process may use, shared with the other ranks of its machine, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class Pool:
    """
    Processes that grade pairs of gold and answer, each within a hard deadline.

    Args:
        workers (`int`):
            Processes that grade at the same time.
        deadline (`float`):
            Seconds for each pair, after which its process is killed and replaced. A second try has as many.
        batch_deadline (`float`):
            Seconds for all pairs of one call; what is not graded then has timed out.
        grader (`str`, *optional*, defaults to `"trl_entropy.rewards.server"`):
            Module whose `prepared()` returns the verdict; by default that of computer algebra.

    Raises `RuntimeError` if the processes cannot be started, or end while they grade, and where there is no `os.fork`.
    """

    def __init__(
        self, workers: int, deadline: float, batch_deadline: float, grader: str = "trl_entropy.rewards.server"
    ):
        if not hasattr(os, "fork"):
            raise RuntimeError(
                "a deadline for each answer needs os.fork, which Linux and macOS have and this system not"
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
        """A verdict for each pair of gold and answer."""
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
            f"the grading process has ended with status {self._process.returncode}; its own message is above. Was it "
            "killed for memory? Set grading_workers to a smaller number"
        )


def _stop(owner: int, connection: Connection, process: subprocess.Popen) -> None:
    connection.close()
    if os.getpid() != owner:  # a fork of the owner: the processes are not its own to end
        process.returncode = 0
        return
    process.terminate()  # it ends its workers first
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
