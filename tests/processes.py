"""
Scripts in processes of their own, which do not wait for imports: they are forked from one that has TRL loaded.

That one has trained nothing, so nothing of the tests comes along. They end without what `atexit` would run.
"""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import pytest


TESTS = Path(__file__).parent
PATHS = [str(TESTS.parent), str(TESTS)]
context = multiprocessing.get_context("forkserver")


class Done(NamedTuple):
    """The first exit code that is not 0, and what all ranks have written."""

    returncode: int
    stdout: str
    stderr: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_script(script: Path, *arguments, ranks: int = 1, timeout: float = 200) -> Done:
    """Run a script, on two ranks as `torchrun` does; if one fails, the others are ended."""
    _start()
    environment = {"OMP_NUM_THREADS": "1"}
    if ranks > 1:
        environment |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with tempfile.TemporaryDirectory() as folder:
        streams = [[f"{folder}/{stream}_{rank}" for stream in ("stdout", "stderr")] for rank in range(ranks)]
        processes = []
        for rank, files in enumerate(streams):
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            given = (list(map(str, (script, *arguments))), environment | of_rank, files)
            processes.append(context.Process(target=_run, args=given))
            processes[-1].start()
        codes = _wait(processes, time.monotonic() + timeout)
        texts = [[Path(file).read_text() if Path(file).exists() else "" for file in files] for files in streams]
    code = next((code for code in codes if code != 0), 0)
    return Done(code, *("".join(written) for written in zip(*texts, strict=True)))


def preloaded() -> multiprocessing.context.BaseContext:
    """What starts processes that have TRL loaded, in the place of `spawn`."""
    _start()
    return context


def _start() -> None:
    """Start the process that is forked, unless it runs. It finds what it loads by the environment alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")]))
        forkserver.set_forkserver_preload(["preloaded"])
        forkserver.ensure_running()


def _run(command: list[str], environment: Mapping[str, str], files: list[str]) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(environment)
    sys.path[:0] = [str(Path(command[0]).parent), *PATHS]
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


def _wait(processes: list, end: float) -> list[int]:
    """The exit codes, in the order in which the processes ended."""
    codes, left = [], {process.sentinel: process for process in processes}
    while left:
        ended = wait(left, max(0.0, end - time.monotonic()))
        for sentinel in ended:
            process = left.pop(sentinel)
            process.join()
            codes.append(process.exitcode)
        if not ended or any(codes):
            for process in left.values():
                process.kill()
            if not ended:
                raise TimeoutError(f"{len(left)} of {len(processes)} processes have not ended")
    return codes
