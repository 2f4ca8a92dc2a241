"""What the commands write: never over what they read, over a file only if told to, and whole or not at all."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import datasets
import pytest

from trl_entropy.commands import cli
from trl_entropy.data import held_out_problems
from trl_entropy.lab import pretrain, report
from trl_entropy.lab.data.flags import WRITERS
from trl_entropy.written import check_new_folder, check_not_in_dataset, check_output, written, written_together


REPOSITORY = Path(__file__).parent.parent
OLD = b"what was there\n"
DATA = {
    "deduplicate": [],
    "decontaminate": ["--against", "benchmark.jsonl"],
    "diversify": ["--size", "2", "--by", "random"],
    "semantic-entropy": [
        "--model",
        "embedded",
        "--num_samples",
        "2",
        "--max_new_tokens",
        "4",
        "--grading_workers",
        "1",
    ],
}
every_verb = pytest.mark.parametrize("verb", DATA)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path, tmp_path_factory):
    """A folder of the test's own with a dataset, a benchmark and a run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    rows = held_out_problems().select(range(3)).to_list()
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    Path("benchmark.jsonl").write_text('{"problem": "what is asked there"}\n')
    Path("run").mkdir()
    logged = [{"step": step, "time": step, "entropy": 1 / step, "reward": 0.5} for step in range(1, 40)]
    Path("run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    yield
    datasets.enable_progress_bars()


def files() -> dict[str, bytes]:
    """All that is here, with what is in it; links and folders too."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in Path().rglob("*")}


def data(verb: str, *more: str) -> list[str]:
    return ["data", verb, "--dataset", "rows.jsonl", *DATA[verb], *more]


def refusal(capsys, arguments: list[str]) -> str:
    """The one line with which a command ends; nothing here has changed by it."""
    before = files()
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert files() == before
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def no_work(monkeypatch) -> None:
    """Reading a dataset or drawing a figure fails the test."""
    monkeypatch.setattr("trl_entropy.lab.data.flags.load", lambda *args: pytest.fail("the dataset is read"))
    monkeypatch.setattr("trl_entropy.lab.report.write_png", lambda *args: pytest.fail("a figure is drawn"))


# Over an input


def other_paths(path: str) -> dict[str, str]:
    """The ways to name a file."""
    folder = Path("there")
    folder.mkdir()
    (folder / "symlink.jsonl").symlink_to(Path(path).absolute())
    (folder / "hardlink.jsonl").hardlink_to(path)
    Path("here").symlink_to(".")
    return {
        "same": path,
        "dotted": f"./there/../{path}",
        "absolute": str(Path(path).absolute()),
        "symlink": "there/symlink.jsonl",
        "hard link": "there/hardlink.jsonl",
        "linked folder": f"here/{path}",
    }


@every_verb
def test_dataset_is_not_written_over_by_whatever_path(verb, monkeypatch, capsys):
    no_work(monkeypatch)
    for output in other_paths("rows.jsonl").values():
        for more in ([], ["--overwrite"]):
            line = refusal(capsys, data(verb, "--output", output, *more))
            assert f"error: {output!r} would overwrite the input 'rows.jsonl': give another path" in line


def test_other_inputs_are_not_written_over(monkeypatch, capsys):
    no_work(monkeypatch)
    for folder in ("benchmarks", "encoder", "samples"):
        Path(folder).mkdir()
    for file in ("benchmarks/aime24.jsonl", "encoder/config.json", "samples/samples.jsonl", "samples/settings.json"):
        Path(file).write_bytes(OLD)
    known = ["--against", "aime24", "--benchmarks_dir", "benchmarks"]
    drawn = ["data", "semantic-entropy", "--dataset", "rows.jsonl"]
    for arguments in (
        data("decontaminate", "--output", "benchmark.jsonl"),
        data("decontaminate", *known, "--output", "benchmarks/aime24.jsonl"),
        data("diversify", "--encoder", "encoder", "--output", "encoder/config.json"),
        [*drawn, "--samples", "samples", "--output", "samples/samples.jsonl"],
        [*drawn, "--samples", "samples", "--output", "samples/settings.json"],
        [*drawn, "--model", "embedded", "--output_dir", "new", "--output", "new/samples.jsonl"],  # to be drawn
    ):
        assert "would overwrite the input" in refusal(capsys, [*arguments, "--overwrite"])


def test_file_of_a_saved_dataset_is_not_written_over(capsys):
    datasets.Dataset.from_list([{"prompt": "1"}, {"prompt": "1"}]).save_to_disk("saved")
    deduplicate = ["data", "deduplicate", "--dataset", "saved", "--overwrite", "--output"]
    Path("link.json").symlink_to("saved/state.json")
    for output in ("saved/state.json", "link.json"):
        assert "would overwrite the input 'saved'" in refusal(capsys, [*deduplicate, output])
    cli.main([*deduplicate, "once.jsonl"])
    assert len(Path("once.jsonl").read_text().splitlines()) == 1


def test_log_of_a_run_is_not_written_over_by_its_report(monkeypatch, capsys):
    no_work(monkeypatch)
    Path("link.html").symlink_to("run/metrics.jsonl")
    for output in ("run/metrics.jsonl", "link.html"):
        line = refusal(capsys, ["report", "run", "--output", output, "--overwrite"])
        assert f"error: {output!r} would overwrite the input" in line


def test_dataset_in_the_folder_of_an_evaluation_is_not_written_over(capsys):
    Path("mine").mkdir()
    Path("rows.jsonl").rename("mine/results.json")
    evaluate = ["eval", "--model", "embedded", "--dataset", "mine/results.json", "--output_dir", "mine"]
    evaluate += ["--max_new_tokens", "4"]
    assert "'mine' holds results.json but no settings.json of an evaluation" in refusal(capsys, evaluate)


# Over another file


@every_verb
def test_file_that_exists_is_replaced_only_if_told_to(verb, monkeypatch, capsys):
    Path("out.jsonl").write_bytes(OLD)
    Path("out.jsonl").chmod(0o640)
    with monkeypatch.context() as patched:
        no_work(patched)
        line = refusal(capsys, data(verb, "--output", "out.jsonl"))
    assert line.endswith("error: 'out.jsonl' exists: give another path, or --overwrite to replace it\n")
    before = files()
    cli.main(data(verb, "--output", "out.jsonl", "--overwrite"))
    rows = [json.loads(text) for text in Path("out.jsonl").read_text().splitlines()]
    assert rows
    assert {"prompt", "solution"} <= rows[0].keys()
    assert stat.S_IMODE(os.stat("out.jsonl").st_mode) == 0o640
    own = {name for name in files() if name == "out" or name.startswith("out/")}  # the samples that were drawn
    assert files().keys() - own == before.keys()


def test_report_is_replaced_only_if_told_to(monkeypatch, capsys):
    report_of_run = ["report", "run"]
    cli.main(report_of_run)
    made = files()
    assert {"out/report.html", "out/report_entropy.png"} <= made.keys()
    with monkeypatch.context() as patched:
        no_work(patched)
        assert "error: 'out/report.html' exists: give another path, or --overwrite" in refusal(capsys, report_of_run)
        Path("out/report.html").unlink()
        assert "report_entropy.png' exists" in refusal(capsys, report_of_run)  # its pictures count too
    Path("out/report_entropy.png").write_bytes(OLD)
    cli.main([*report_of_run, "--overwrite"])
    assert files().keys() == made.keys()
    assert Path("out/report_entropy.png").read_bytes() != OLD


def test_report_to_a_folder_ends_before_anything_is_drawn(monkeypatch, capsys):
    no_work(monkeypatch)
    Path("rep").mkdir()
    assert "'rep' is a folder: give the path of a file" in refusal(capsys, ["report", "run", "--output", "rep"])


@pytest.mark.parametrize("file", ["compare.json", "compare.png"])
def test_comparison_ends_before_an_arm_starts_if_there_is_one(file, monkeypatch, capsys):
    monkeypatch.setattr("trl_entropy.lab.compare._run", lambda *args: pytest.fail("an arm is started"))
    Path("out").mkdir()
    Path("out", file).write_bytes(OLD)
    Path("plain.yaml").write_text("seed: 1\n")
    line = refusal(capsys, ["compare", "plain.yaml", "--output_dir", "out"])
    assert f"error: 'out/{file}' exists: give another path, or --overwrite" in line


def test_commands_of_the_makefile_may_be_run_again():
    lines = [line for line in (REPOSITORY / "Makefile").read_text().splitlines() if "/trl-entropy" in line]
    assert len(lines) > 2
    assert all("--overwrite" in line or line.strip().startswith("test -d") for line in lines)


@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl"])
def test_sums_are_replaced_only_if_told_to(file, capsys):
    Path("sums").mkdir()
    Path("sums", file).write_bytes(OLD)
    make = ["make-chain-sum", "sums", "--train_size", "4", "--test_size", "2"]
    assert f"error: 'sums/{file}' exists: give another path, or --overwrite" in refusal(capsys, make)
    pytest.importorskip("reasoning_gym")
    cli.main([*make, "--overwrite"])
    assert sorted(path.name for path in Path("sums").iterdir()) == ["test.jsonl", "train.jsonl"]
    assert len(Path("sums/train.jsonl").read_text().splitlines()) == 4


def test_model_is_written_to_a_new_folder_alone(monkeypatch, capsys):
    Path("file").write_bytes(OLD)
    for folder, reason in (("run", "is not empty"), ("file/model", "'{}' is not a folder")):
        reason = reason.format(Path("file").absolute())
        assert reason in refusal(capsys, ["fetch-smollm2", folder])
        monkeypatch.setattr(sys, "argv", ["pretrain", "--output_dir", folder])
        before = files()
        with pytest.raises(SystemExit) as ended:
            pretrain.main()
        assert ended.value.code == 2
        assert files() == before
        assert reason in capsys.readouterr().err
    monkeypatch.setattr(pretrain, "pretrain", partial(pretrain.pretrain, steps=1))
    Path("model").mkdir()  # an empty one is as good as none
    monkeypatch.setattr(sys, "argv", ["pretrain", "--output_dir", "model"])
    pretrain.main()
    made = {path.name for path in Path("model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= made
    assert files().keys() - before.keys() == {"model", *(f"model/{name}" for name in made)}


# Whole or not at all


@pytest.fixture
def small_disk(monkeypatch):
    """No file of a dataset may be larger than a few bytes while it is written: its writer fails in the middle."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limited(writer):
        def write(dataset, *args, **kwargs):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
            try:
                return writer(dataset, *args, **kwargs)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        return write

    for ending, writer in WRITERS.items():
        monkeypatch.setitem(WRITERS, ending, limited(writer))
    yield
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_full_disk_leaves_the_old_file_and_nothing_else(ending, small_disk, capsys):
    output = f"out.{ending}"
    Path(output).write_bytes(OLD)
    Path("rows.jsonl").write_text('{"prompt": "How much is 1 + 1?", "solution": "2"}\n')
    line = refusal(capsys, data("deduplicate", "--output", output, "--overwrite"))
    assert f"error: '{Path.cwd()}' cannot be written to (File too large)" in line
    Path(output).unlink()
    refusal(capsys, data("deduplicate", "--output", output))
    assert not Path(output).exists()


def test_rows_are_kept_with_all_of_their_digits(capsys):
    row = {"prompt": "?", "solution": 1e-12, "more": [3.141592653589793], "text": "π"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    for output in ("out.jsonl", "out.json"):
        cli.main(data("deduplicate", "--output", output))
        assert json.loads(Path(output).read_text(encoding="utf-8")) == row
    assert "a .csv file cannot hold the lists in 'more'" in refusal(capsys, data("deduplicate", "--output", "out.csv"))


@pytest.mark.parametrize("output", ["folder/out.jsonl", "folder", "./folder/../folder/new/out.jsonl"])
def test_nothing_is_written_into_the_folder_of_a_dataset(output):
    Path("folder").mkdir()
    with pytest.raises(ValueError, match="is inside the dataset 'folder': give another path"):
        check_not_in_dataset(output, "folder")
    check_not_in_dataset(output, "openai/gsm8k")


def test_report_that_fails_in_the_middle_leaves_the_old_one(monkeypatch):
    cli.main(["report", "run"])
    before = files()
    monkeypatch.setattr(report, "page", lambda *args: 1 / 0)
    for output in ("out/report.html", "new/report.html"):
        with pytest.raises(ZeroDivisionError):
            cli.main(["report", "run", "--output", output, "--overwrite"])
    assert files() == before | {"new": b""}


def test_block_that_raises_leaves_the_old_file():
    Path("old").write_bytes(OLD)
    before = files()

    def write_half(error: BaseException) -> None:
        with written("old", overwrite=True) as part:
            part.write_text("half")
            raise error

    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half(error())
    with pytest.raises(OSError, match=r"' cannot be written to \(No space left on device\)"):
        write_half(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert files() == before


def test_process_that_is_killed_leaves_the_old_file():
    Path("old").write_bytes(OLD)
    code = """
import os, signal
from trl_entropy.written import written

with written("old", overwrite=True) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -signal.SIGKILL
    assert Path("old").read_bytes() == OLD


def test_file_that_appears_meanwhile_is_kept():
    def write_two() -> None:
        with written_together("new") as scratch:
            for name in ("a.txt", "b.txt"):
                (scratch / name).write_text("mine")
            Path("new/b.txt").write_bytes(OLD)

    with pytest.raises(ValueError, match="b.txt' exists"):
        write_two()
    assert {name: content for name, content in files().items() if name.startswith("new/")} == {"new/b.txt": OLD}


def test_new_file_may_be_read_as_any_other():
    Path("plain").write_text("")
    with written("new") as part:
        part.write_text("all")
    assert os.stat("new").st_mode == os.stat("plain").st_mode
    assert Path("new").read_text() == "all"


def test_link_is_written_through():
    Path("there").mkdir()
    Path("there/real").write_bytes(OLD)
    Path("link").symlink_to("there/real")
    Path("dangling").symlink_to("there/new")
    for name in ("link", "dangling"):
        with written(name, overwrite=True) as part:
            part.write_text(name)
        assert Path(name).is_symlink()
    assert (Path("there/real").read_text(), Path("there/new").read_text()) == ("link", "dangling")
    assert sorted(path.name for path in Path("there").iterdir()) == ["new", "real"]


# What may be written


def test_place_that_takes_no_file_is_refused():
    Path("file").write_bytes(OLD)
    Path("loop").symlink_to("loop")
    before = files()
    for output, reason in {
        "run": "'run' is a folder: give the path of a file",
        "file/new/out.jsonl": f"'file/new/out.jsonl' cannot be written: '{Path('file').absolute()}' is not a folder",
        "/dev/null": "'/dev/null' is not a regular file",
        "loop": "'loop' is not a regular file",
    }.items():
        with pytest.raises(ValueError, match=f"^{reason}"):
            check_output(output, overwrite=True)
    with pytest.raises(ValueError, match="is not a folder"):
        check_new_folder("file/new")
    assert files() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused():
    Path("closed").mkdir(mode=0o500)
    for output in ("closed/out.jsonl", "closed/new/out.jsonl"):
        with pytest.raises(ValueError, match="cannot be written: you have no permission to write to"):
            check_output(output)


def test_other_paths_may_be_written():
    before = files()
    check_output("new/folder/out.jsonl", inputs=["rows.jsonl", "run", "openai/gsm8k", "gone.jsonl"])
    check_output("run/new.jsonl", inputs=["run"])
    check_output("rows.jsonl", overwrite=True, inputs=["benchmark.jsonl", "run"])
    check_new_folder("new/folder")
    assert files() == before
