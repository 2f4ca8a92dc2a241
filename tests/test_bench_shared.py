"""What the benchmarks share: clocks, counts of GPU syncs, minutes, and policies on a device and in a dtype."""

import importlib.util
import json
import math
import sys
import warnings
from pathlib import Path

import pytest
import torch


BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared, memory = loaded("shared"), loaded("memory")


# Clocks


class Event:
    """An event of CUDA, on a GPU whose clock goes on by 250 ms with every one."""

    clock, waited = 0.0, []

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self):
        Event.clock += 250.0
        self.at = Event.clock

    def synchronize(self):
        Event.waited.append(self)

    def elapsed_time(self, end: "Event") -> float:
        assert end in Event.waited
        return end.at - self.at


def test_seconds_on_a_gpu_are_those_between_two_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    called = []
    assert shared.seconds(lambda: called.append(Event.clock), "cuda") == 0.25
    start, end = shared.mark("cuda"), shared.mark("cuda")
    assert not {start, end} & set(Event.waited)  # a mark does not wait
    assert shared.between(start, end) == 0.25
    assert len(called) == 1


def test_seconds_on_a_cpu_are_those_of_the_process(monkeypatch):
    clock = iter([1.0, 3.5])
    monkeypatch.setattr(shared.time, "process_time", lambda: next(clock))
    assert shared.seconds(lambda: None, "cpu") == 2.5


def test_minutes_are_shared_by_weight(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(shared.time, "monotonic", lambda: now[0])
    budget = shared.Budget(1.0, [1, 1, 2, 1])
    assert budget.next() == 60 / 5
    now[0] += 20
    assert budget.next() == 40 / 4
    now[0] += 10
    assert budget.next() == 30 * 2 / 3
    now[0] += 31
    assert budget.next() == 0
    assert shared.Budget(None, [1]).next() == math.inf


# Syncs


def call_from(file: str, code: str, **names) -> None:
    exec(compile(code, file, "exec"), names)


OWN = f"{shared.PACKAGE}measures/made_up.py"
THEIRS = "/lib/site-packages/trl/trainer/grpo_trainer.py"


def test_syncs_are_counted_and_have_their_line():
    values = torch.arange(3)
    with shared.Counted() as counts:
        call_from(OWN, "\nvalues.tolist()\nvalues.sum().item()\nvalues[values > 1]", values=values)
        call_from(THEIRS, "values.cpu()", values=values)
    assert counts.syncs.number == 4
    assert counts.syncs.lines == {f"measures/made_up.py:{line}": 1 for line in (2, 3, 4)}


def test_sync_of_trl_that_the_package_has_called_is_no_line_of_it():
    def of_trl():
        call_from(THEIRS, "values.tolist()", values=torch.ones(1))

    with shared.Counted() as counts:
        call_from(OWN, "of_trl()", of_trl=of_trl)
    assert (counts.syncs.number, counts.syncs.lines) == (1, {})


def test_syncs_that_cuda_warns_of(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    code = 'for _ in range(3):\n    warn("called a synchronizing CUDA operation")\nwarn("of something else")'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        syncs = shared.cuda_syncs(lambda: call_from(OWN, code, warn=warnings.warn))
    assert (syncs.number, syncs.lines) == (3, {"measures/made_up.py:2": 3})
    assert modes == ["warn", "default"]


def test_what_an_arm_counts_more():
    counts = {"operations": 5, "syncs": 2, "lines": shared.Counter({"a": 2})}
    base = {"operations": 3, "syncs": 0, "lines": shared.Counter()}
    assert shared.added(counts, base) == {"operations": 2, "syncs": 2, "lines": {"a": 2}}


# Sizes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_policy_is_in_the_dtype_of_the_size(dtype):
    model = shared.policy(shared.SMALL._replace(dtype=dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32  # angles of far tokens need it


def test_policy_is_as_large_as_qwen_says():
    with torch.device("meta"):
        model = shared.policy(shared.LARGE._replace(device="meta"))
    # 28 layers of 46,797,824, an embedding of 151936 x 1536, and a norm
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_543_714_304


def size_of(monkeypatch, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["part", *arguments])
    return shared.given(shared.flags_of("A part."), shared.Size(), shared.LARGE).size


def test_size_of_flags(monkeypatch):
    given = size_of(monkeypatch, "--device", "cpu", "--hidden", "64", "--rows", "2", "--dtype", "bfloat16")
    assert given == shared.Size(hidden=64, rows=2, device="cpu", dtype="bfloat16")
    assert size_of(monkeypatch, "--device", "cpu") == shared.Size(device="cpu", dtype="float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given = size_of(monkeypatch, "--device", "cuda", "--length", "1024")
    assert given == shared.LARGE._replace(length=1024)


def test_gpu_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        size_of(monkeypatch, "--device", "cuda")
    assert "--device cuda: torch sees no GPU here; give cpu" in capsys.readouterr().err


# Memory


PROCESS = """#!/bin/sh
case "$*" in
    *"--arm TRL"*) bytes=100 ;;
    *"--arm measures"*) echo "out of memory" >&2; exit 3 ;;
    *"--arm package"*) sleep 60 ;;
    *) bytes=150 ;;
esac
echo '{"bytes": '$bytes', "seconds": 1.0, "machine": {}, "size": {"device": "cpu"}}'
"""


def test_arm_that_fails_stops_no_other(tmp_path, monkeypatch):
    process, out = tmp_path / "python", tmp_path / "memory.json"
    process.write_text(PROCESS)
    process.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(process))
    arms = ["TRL", "measures", "fast step", "package", "full logits"]
    monkeypatch.setattr(sys, "argv", ["memory.py", "--out", str(out), "--minutes", "0.05", "--arms", *arms])
    with pytest.raises(SystemExit) as ended:
        memory.main()
    assert ended.value.code == "measures: out of memory"
    report = json.loads(out.read_text())
    assert {name: arm["ratio"] for name, arm in report["arms"].items()} == {"TRL": 1.0, "fast step": 1.5}
    assert report["failed"] == {"measures": "out of memory"}
    assert report["left out"] == ["package", "full logits"]  # out of time, the first of them while it ran
