"""A run that accelerate has started ends with the command that launched it, whoever gets the signal."""

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from toy import few


# What accelerate starts: it tells of each signal, and takes a moment to end
RUN = """
import os, signal, sys, time
from pathlib import Path

def stop(number, frame):
    with open(f"signals_{rank}", "a") as file:
        file.write(f"{number}\\n")

rank = os.environ.get("RANK", "0")
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, stop)
Path(f"part_{rank}").write_text(str(os.getpid()))
os.replace(f"part_{rank}", f"started_{rank}")
while not Path(f"signals_{rank}").exists():
    time.sleep(0.05)
time.sleep(1)
Path(f"ended_{rank}").touch()
sys.exit(5)
"""
LAUNCH = "import sys; from trl_entropy.commands.launch import status_of; sys.exit(status_of(sys.argv[1:], {}))"
ACCELERATE = [sys.executable, "-m", "trl_entropy.commands.launch"]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a command in a session of its own, as a shell does, in a folder where `run.py` is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    Path("run.py").write_text(RUN)
    started = []

    def start(*command: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", LAUNCH, *command], start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def wait_for(name: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not Path(name).exists():
        assert process.poll() is None
        assert time.monotonic() < until, f"there is no {name}"
        time.sleep(0.05)


USUAL = [(1, "INT", False), (1, "TERM", True)]
OTHERS = [case for case in product((1, 2), ("INT", "QUIT", "TERM"), (False, True)) if case not in USUAL]


@pytest.mark.parametrize("case", few([*USUAL, *OTHERS], len(USUAL)))
def test_signal_to_the_launcher_ends_what_accelerate_has_started(start, case):
    ranks, sent, to_group = case
    number = signal.Signals[f"SIG{sent}"]
    on_ranks = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"] if ranks > 1 else []
    process = start(*ACCELERATE, *on_ranks, "--module", "run")
    for rank in range(ranks):
        wait_for(f"started_{rank}", process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    assert process.wait(60) == 128 + number
    for rank in range(ranks):
        assert Path(f"ended_{rank}").exists()
        assert Path(f"signals_{rank}").read_text().splitlines() == [str(int(number))]
        with pytest.raises(ProcessLookupError):
            os.kill(int(Path(f"started_{rank}").read_text()), 0)


def test_status_is_that_of_the_run(start):
    Path("signals_0").touch()
    assert start(*ACCELERATE, "--module", "run").wait(120) == 5


def test_settings_that_accelerate_refuses_end_with_one_line(start, capfd):
    assert start(*ACCELERATE, "--multi_gpu", "--num_processes", "1", "--module", "run").wait(120) == 2
    *_, last = capfd.readouterr().err.splitlines()
    assert last == "accelerate launch: error: You need to use at least 2 processes to use `--multi_gpu`."


def test_status_of_a_command_that_a_signal_has_ended(start):
    assert start(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").wait(60) == 128 + 9


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_status_of_a_run_that_a_signal_has_ended(start, ranks):
    Path("killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    on_ranks = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"] if ranks > 1 else []
    assert start(*ACCELERATE, *on_ranks, "--module", "killed").wait(120) == 128 + 9


def test_signal_that_is_ignored_stays_so(start):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = start(*ACCELERATE, "--module", "run")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for("started_0", process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
