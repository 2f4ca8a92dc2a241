"""The files of the runs: a line for each, written whole, by one process at a time."""

import json
import signal
import subprocess
import sys

import pytest

from study import store
from study.arms import FIXED, SECTIONS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    return tmp_path


def run(arm="grpo", seed=1, **content) -> dict:
    return {"arm": arm, "seed": seed, **content}


def writer(folder, body: str) -> subprocess.Popen:
    """Another process that writes to the folder."""
    start = f"import os, pathlib\nfrom study import store\nstore.FOLDER = pathlib.Path({str(folder)!r})\n"
    return subprocess.Popen([sys.executable, "-c", start + body], cwd=store.__file__.rpartition("/study/")[0])


def test_every_arm_has_one_section():
    assert len(store.SECTION) == sum(map(len, store.ARMS.values()))
    assert FIXED.keys() <= store.SECTION.keys()
    assert len(FIXED) == sum(map(len, SECTIONS.values()))


def test_files_of_the_study_are_as_they_are_written():
    names = {path.name for path in store.FOLDER.iterdir() if path.suffix != ".part"}
    assert names <= {f"{section}.jsonl" for section in store.ARMS}
    for section, arms in store.ARMS.items():
        path = store.FOLDER / f"{section}.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [json.loads(line) for line in lines]
        assert [json.dumps(one, separators=(",", ":")) for one in kept] == lines
        keys = [(one["arm"], one["seed"]) for one in kept]
        assert keys == sorted(set(keys))
        assert {arm for arm, _ in keys} <= set(arms)


def test_lines_by_arm_and_seed_in_the_file_of_the_section(folder):
    for one in (run(seed=10), run(seed=2), run("clip_lower"), run("clip_higher_16"), run(seed=10, again=True)):
        store.write(one)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "collapse.jsonl": '{"arm":"grpo","seed":2}\n{"arm":"grpo","seed":10,"again":true}\n',
        "clip_ranges.jsonl": '{"arm":"clip_higher_16","seed":1}\n{"arm":"clip_lower","seed":1}\n',
    }
    assert store.load("grpo", 2) == run(seed=2)
    assert store.load("grpo", 3) is store.load("fresh", 1) is None
    assert store.every() == [run("clip_higher_16"), run("clip_lower"), run(seed=2), run(seed=10, again=True)]


def test_a_file_is_parsed_once_until_another_process_writes(folder, monkeypatch):
    store.write(run(seed=1))
    parsed = []
    monkeypatch.setattr(store, "_parsed", lambda path, parse=store._parsed: parsed.append(path) or parse(path))
    assert store.load("grpo", 1) == store.load("grpo", 1) == run(seed=1)
    assert parsed == [folder / "collapse.jsonl"]
    assert writer(folder, "store.write({'arm': 'grpo', 'seed': 2})").wait() == 0
    assert store.load("grpo", 2) == run(seed=2)
    assert len(parsed) == 2


def test_killed_in_the_middle_of_a_write(folder):
    store.write(run(seed=1))
    killed = writer(folder, "os.fsync = lambda _: os.kill(os.getpid(), 9)\nstore.write({'arm': 'grpo', 'seed': 2})")
    assert killed.wait() == -signal.SIGKILL
    assert {path.name for path in folder.iterdir()} == {"collapse.jsonl", "collapse.part"}
    assert store.every() == [run(seed=1)]
    store.write(run(seed=3))
    assert {path.name for path in folder.iterdir()} == {"collapse.jsonl"}
    assert store.every() == [run(seed=1), run(seed=3)]


def test_two_processes_that_write_at_once_lose_nothing(folder):
    body = "for seed in range({}, {}): store.write({{'arm': 'grpo', 'seed': seed}})"
    writers = [writer(folder, body.format(start, start + 100)) for start in (0, 100)]
    assert [process.wait() for process in writers] == [0, 0]
    assert [one["seed"] for one in store.every()] == list(range(200))


@pytest.mark.parametrize("line", ['{"arm":"grpo","se', '{"arm":"grpo"}', "[]", ""])
def test_broken_last_line_is_refused(folder, line):
    store.write(run())
    path = folder / "collapse.jsonl"
    path.write_text(before := path.read_text() + line + "\n")
    for asked in (store.every, lambda: store.load("grpo", 1), lambda: store.write(run(seed=2))):
        with pytest.raises(ValueError, match="collapse.jsonl, line 2, is not a run.*delete the line"):
            asked()
    assert path.read_text() == before


def test_arm_of_no_section_is_refused(folder):
    for asked in (lambda: store.load("grop", 1), lambda: store.write(run("grop"))):
        with pytest.raises(ValueError, match="the arm 'grop' is in no section of the study: add it to one of"):
            asked()
