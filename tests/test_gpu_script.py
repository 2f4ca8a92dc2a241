"""The script for a GPU: its parts one after another, and all of them on a CPU in bfloat16."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from study.arms import SEEDS


REPOSITORY = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("gpu", REPOSITORY / "benchmarks" / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)

PART = """
import json, os, pathlib, sys, time
name, out = pathlib.Path(__file__).stem, pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
exec(os.environ.get("PART", ""))
out.write_text(json.dumps(sys.argv[1:]))
"""


def command(tree: Path, *arguments: str) -> list[str]:
    return [str(tree / "benchmarks" / "gpu.sh"), *arguments]


def call(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tree / "results"), **environment}
    return subprocess.run(command(tree, *arguments), env=environment, capture_output=True, text=True, cwd=tree)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def tree(tmp_path) -> Path:
    """The script with parts that do what the variable PART says, and then keep their flags as their result."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("gpu.sh", "gpu.py"):
        shutil.copy(REPOSITORY / "benchmarks" / name, tmp_path / "benchmarks")
    for name in gpu.MINUTES:
        (tmp_path / "benchmarks" / f"{name}.py").write_text(PART)
    (tmp_path / "trl_entropy" / "commands").mkdir(parents=True)
    for name in ("__init__", "commands/__init__", "commands/grpo"):
        (tmp_path / "trl_entropy" / f"{name}.py").touch()
    return tmp_path


def test_part_that_fails_stops_no_other(tree):
    done = call(tree, "--hidden", "64", PART="if name == 'overhead': sys.exit('no memory')")
    assert done.returncode == 1, done.stderr
    parts = read(tree / "results" / "summary.json")["parts"]
    reasons = {name: part["failed"] for name, part in parts.items()}
    missing = "out/smollm2/config.json is missing: trl-entropy fetch-smollm2 out/smollm2"
    assert reasons == {"overhead": "no memory (exit code 1)", "fast_step": None, "memory": None, "study": missing}
    assert f"study: failed: {missing}" in done.stdout
    assert "2 of 4 parts done" in done.stdout
    # what is given stands behind what the part has, so that it counts
    flags = read(tree / "results" / "memory.json")
    assert flags[flags.index("--hidden") + 1] == "64"
    assert flags[flags.index("--minutes") + 1] == "3.000"


def test_folder_and_parts_are_those_that_are_given(tree):
    done = call(tree, "here", "--parts", "fast_step", "--fast_step_minutes", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tree / "here").iterdir()) == ["fast_step.json", "log.txt", "summary.json"]
    flags = read(tree / "here" / "fast_step.json")
    assert flags[flags.index("--minutes") + 1] == "0.500"


def test_no_part_begins_without_time(tree):
    done = call(tree, "--minutes", "0.2", "--parts", "memory")
    assert done.returncode == 1
    assert read(tree / "results" / "summary.json")["parts"]["memory"]["failed"] == "no time was left"


def test_python_that_lacks_a_package(tree):
    (tree / "trl_entropy" / "commands" / "grpo.py").write_text("import no_such_package")
    done = call(tree)
    assert done.returncode == 2
    assert done.stderr == f"{sys.executable}: ModuleNotFoundError: No module named 'no_such_package'\n"
    assert not (tree / "results").exists()


def test_memory_without_an_arm_is_no_result(tmp_path):
    flags = ["--device", "cpu", "--minutes", "0", "--out", str(tmp_path / "memory.json")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    memory = [sys.executable, str(REPOSITORY / "benchmarks" / "memory.py"), *flags]
    done = subprocess.run(memory, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "no arm has ended within --minutes 0"


def test_folder_that_is_a_file(tree):
    (tree / "results").touch()
    done = call(tree)
    assert done.returncode == 2
    assert f"'{tree / 'results'}' is a file: name another one" in done.stderr


def test_part_that_takes_too_long_is_ended_with_all_it_has_started(tmp_path):
    (tmp_path / "log.txt").write_text("")
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {child!r}]); print(c.pid); c.wait()"
    start = time.monotonic()
    assert gpu.run("slow", ["-c", code], 2.0, tmp_path, time.time()) == "ended after 2 s"
    assert time.monotonic() - start < 20
    pid = int((tmp_path / "log.txt").read_text().splitlines()[-1])
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if ") Z " in Path(f"/proc/{pid}/stat").read_text():  # nobody waits for it where there is no init
            return
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_script_that_is_ended_keeps_what_is_there(tree):
    environment = {**os.environ, "PYTHON": sys.executable, "PART": "if name == 'fast_step': time.sleep(60)"}
    running = subprocess.Popen(command(tree, "out"), env=environment, cwd=tree, stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline().startswith("overhead: done")
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 143
    running.stdout.close()
    assert (tree / "out" / "overhead.json").exists()
    assert list(read(tree / "out" / "summary.json")["parts"]) == ["overhead"]


def test_runs_of_files_that_have_changed_are_collected(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "RUNS", tmp_path / "runs")
    gpu.RUNS.mkdir()
    (gpu.RUNS / "collapse.jsonl").write_text('{"arm":"old"}\n')
    os.utime(gpu.RUNS / "collapse.jsonl", (0, 0))
    gpu.collect(tmp_path, time.time() - 10)
    assert not (tmp_path / "study.jsonl").exists()
    for name in ("language_model_gpu", "language_model"):
        (gpu.RUNS / f"{name}.jsonl").write_text(f'{{"arm":"{name}"}}\n')
    gpu.collect(tmp_path, time.time() - 10)
    assert (tmp_path / "study.jsonl").read_text() == '{"arm":"language_model"}\n{"arm":"language_model_gpu"}\n'


# All of it


TINY = "--device cpu --dtype bfloat16 --hidden 32 --layers 1 --vocabulary 200 --length 16"
BUDGETS = "--minutes 6 --overhead_minutes 0.1 --fast_step_minutes 0.1 --memory_minutes 0.6 --jobs 1"
# One arm of two steps, whose seeds are more than there is time for
ARM = """
GPU |= {"use_cpu": "true", "num_generations": 4, "per_device_train_batch_size": 8, "off_policy_updates": 2}
GPU |= {"max_steps": 2, "pass_at_k_every": 2, "pass_at_k_samples": 8, "max_completion_length": 4}
GPU_ARMS = {"gpu_smollm2_grpo": GPU_ARMS["gpu_smollm2_grpo"]._replace(window=1)}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, model_dir) -> Path:
    """What a copy of the repository, with an arm of two steps, writes."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("benchmarks", "recipes", "study", "trl_entropy"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    with (tree / "study" / "language.py").open("a") as file:
        file.write(ARM)
    model, problems = tree / "model", tree / "problems"
    shutil.copytree(model_dir, model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(model)
    problems.mkdir()
    rows = "".join(json.dumps({"prompt": f"{n} + 1 =", "solution": str(n + 1)}) + "\n" for n in range(8))
    for name in ("train", "test"):
        (problems / f"{name}.jsonl").write_text(rows)
    folders = ["--smollm2", str(model), "--chain_sum", str(problems)]
    done = call(tree, "results", *TINY.split(), *BUDGETS.split(), *folders)
    log = (tree / "results" / "log.txt").read_text()
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{log}"
    return tree / "results"


@pytest.mark.slow
def test_files(results):
    parts = read(results / "summary.json")["parts"]
    assert {name: part["failed"] for name, part in parts.items()} == dict.fromkeys(gpu.PARTS)
    files = {"overhead.json", "fast_step.json", "memory.json", "study.jsonl", "summary.json", "log.txt"}
    assert {path.name for path in results.iterdir()} == files


@pytest.mark.slow
@pytest.mark.parametrize("part", gpu.MINUTES)
def test_size_is_that_of_the_flags(results, part):
    size = read(results / f"{part}.json")["size"]
    given = {"device": "cpu", "dtype": "bfloat16", "hidden": 32, "layers": 1, "vocabulary": 200, "length": 16}
    assert given.items() <= size.items()
    assert size["rows"] == 4
    assert size["micro_batches"] == (2 if part == "overhead" else 4)


@pytest.mark.slow
def test_overhead(results):
    report = read(results / "overhead.json")
    arms = report["arms"]
    assert "TRL again" in arms
    assert arms.keys().isdisjoint(report["left out"])
    assert len(arms) + len(report["left out"]) == 6
    assert 0 < report["TRL"]["floor"] < report["TRL"]["seconds"]
    assert all(
        0.1 < arm["ratio"]["low"] <= arm["ratio"]["median"] <= arm["ratio"]["high"] < 10 for arm in arms.values()
    )
    assert report["syncs"] == "by operations: only a GPU shows them"
    again = arms["TRL again"]["added"]
    assert {name: (part["operations"], part["syncs"]) for name, part in again.items()} == dict.fromkeys(again, (0, 0))


@pytest.mark.slow
def test_fast_step(results):
    report = read(results / "fast_step.json")
    found = {(way, share) for share, arm in report["arms"].items() for way in arm["ways"]}
    assert found
    assert len(found) + len(report["left out"]) == 12
    for arm in report["arms"].values():
        for way in arm["ways"].values():
            assert 0 < way["positions"] <= 1
            assert way["gradient"] < 0.05  # of bfloat16
            assert 0.05 < way["ratio"]["median"] < 10


@pytest.mark.slow
def test_memory(results):
    report = read(results / "memory.json")
    assert report["failed"] == {}
    assert [*report["arms"], *report["left out"]] == list(gpu.ARMS)
    assert report["arms"]["TRL"]["ratio"] == 1
    assert all(arm["bytes"] > 0 and arm["seconds"] > 0 for arm in report["arms"].values())


@pytest.mark.slow
def test_runs_of_the_study(results):
    runs = [json.loads(line) for line in (results / "study.jsonl").read_text().splitlines()]
    assert 1 <= len(runs) <= len(SEEDS)
    for run, seed in zip(runs, SEEDS, strict=False):
        assert (run["arm"], run["seed"]) == ("gpu_smollm2_grpo", seed)
        assert run["series"]["step"] == [1, 2]
        assert [scores["step"] for scores in run["scores"]] == [0, 2]
        flags = run["flags"]
        assert flags[flags.index("--bf16") + 1] == "true"
        assert all(0 <= value < 4 for value in run["series"]["entropy"])
