"""The command `trl-entropy eval`, with the tiny model."""

import json
import math
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import preloaded
from transformers import PreTrainedModel

from trl_entropy.commands import cli
from trl_entropy.lab.evaluation import command, run
from trl_entropy.lab.evaluation.command import read
from trl_entropy.lab.evaluation.figures import plot_figures
from trl_entropy.lab.evaluation.folder import Folder, Line, read_lines
from trl_entropy.lab.evaluation.metrics import scores
from trl_entropy.lab.evaluation.scoring import read_samples
from trl_entropy.rewards import MathVerifyReward, Verifier


FIGURES = {"calibration.png", "pass_at_k.png"}
FILES = {"results.json", "samples.jsonl", "settings.json", *FIGURES}


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def problems() -> str:
    return write_problems("problems.jsonl", 6)


def write_problems(name: str, number: int) -> str:
    Path(name).write_text(
        "".join(json.dumps({"prompt": f"{n}+1=", "solution": str((n + 1) % 10)}) + "\n" for n in range(number))
    )
    return name


@pytest.fixture
def flags(model_dir, problems):
    """The flags of a small run: `flags(*others, num_samples=4)`."""

    def make(*others: str, dataset: str | None = problems, **changes) -> list[str]:
        settings = {"num_samples": 4, "max_new_tokens": 4, "output_dir": "out", "answer_from": "last_number"}
        settings |= {"grading_workers": 1, "resamples": 50, **changes}
        given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return ["--model", model_dir, *(["--dataset", dataset] if dataset else []), *given, *others]

    return make


def evaluate(arguments: list[str]) -> None:
    cli.main(["eval", *arguments])


def rows_of(output: str) -> list[list[str]]:
    lines = [line.replace("┃", "│") for line in output.splitlines()]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def size_of_png(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


def no_model(monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))


# Results


def test_run_leaves_samples_results_and_pictures(flags, monkeypatch, capfd):
    monkeypatch.setattr(run, "plot_figures", plot_figures)
    evaluate(flags())
    out = Path("out")
    assert {file.name for file in out.iterdir()} == FILES
    lines = read_lines(out / "samples.jsonl")
    assert [(line.problem, line.sample) for line in lines] == [(p, s) for p in range(6) for s in range(4)]
    rows = [json.loads(line) for line in Path("problems.jsonl").read_text().splitlines()]
    assert [(line.prompt, line.solution) for line in lines[::4]] == [(row["prompt"], row["solution"]) for row in rows]
    results = json.loads((out / "results.json").read_text())
    expected = scores(read_samples(out, 4, Verifier(workers=1)), range(1, 5), resamples=50)
    values = results["results"]["problems.jsonl"]
    assert list(values) == [f"{name}{kind},none" for name in expected for kind in ("", "_stderr")]
    assert "pass@3,none" in values
    for name, score in expected.items():
        found = [values[f"{name},none"], values[f"{name}_stderr,none"]]
        assert [math.nan if value is None else value for value in found] == pytest.approx(list(score), nan_ok=True)
    correct = [line.correct for line in lines]
    assert values["avg@4,none"] == pytest.approx(sum(correct) / 24)
    assert 0 < sum(correct) < 24
    assert sum(results["reasons"].values()) == pytest.approx(1)
    assert results["reasons"]["correct"] == sum(correct) / 24
    settings = results["settings"]
    assert (settings["template"], settings["seed"], settings["top_p"], settings["dtype"]) == (
        "plain",
        0,
        1.0,
        "float32",
    )
    assert settings["answer_from"] == ["last_number"]
    assert {"torch", "transformers", "trl_entropy", "python"} == results["versions"].keys()
    assert size_of_png(out / "pass_at_k.png") == (675, 540)  # 4.5 x 3.6 inches, 150 dots each
    assert size_of_png(out / "calibration.png") == (1200, 630)
    table = dict(rows_of(capfd.readouterr().out)[1:])
    assert table["avg@4"] == f"{values['avg@4,none']:.3f} ± {values['avg@4_stderr,none']:.3f}"
    assert not {"avg@1", "pass@3", "maj@3"} & table.keys()
    assert {"pass@1", "pass@2", "pass@4", "maj@4", "self_bleu", "ece_vote", "prompt_entropy"} <= table.keys()


def test_what_is_not_defined_is_null(flags):
    evaluate(flags("--answer_from", "boxed", "--limit", "2"))  # nothing is ever boxed

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    results = json.loads(Path("out/results.json").read_text(), parse_constant=refuse)
    values = results["results"]["problems.jsonl"]
    assert (values["auroc_vote,none"], values["auroc_vote_stderr,none"], values["avg@4,none"]) == (None, None, 0.0)
    assert results["reasons"] == {"no_answer": 1.0}


def test_answer_is_graded_as_the_reward_does(flags):
    evaluate(flags())
    golds = [json.loads(line)["solution"] for line in Path("problems.jsonl").read_text().splitlines()]
    reward = MathVerifyReward("last_number", workers=1)
    for line in read_lines(Path("out/samples.jsonl")):
        (answer,), (reason,) = reward.verdicts([line.response], [golds[line.problem]])
        assert (line.answer, line.reason, line.correct) == (answer, reason, reason == "correct")


def test_benchmarks_have_a_column_and_a_folder_each(flags, capfd):
    Path("data").mkdir()
    for name, number in (("aime24", 3), ("math500", 2)):
        rows = [{"problem": f"{n}=", "answer": n} for n in range(number)]
        Path(f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(flags("--benchmarks", "aime24", "math500", "--benchmarks_dir", "data", "--limit", "2", dataset=None))
    assert {file.name for file in Path("out").iterdir()} == {"aime24", "math500"}
    for name in ("aime24", "math500"):
        assert {file.name for file in Path("out", name).iterdir()} == FILES - FIGURES
        assert len(read_lines(Path("out", name, "samples.jsonl"))) == 8
    assert rows_of(capfd.readouterr().out)[0] == ["", "aime24", "math500"]


def test_solutions_that_cannot_be_read_are_told(flags, caplog):
    Path("odd.jsonl").write_text('{"prompt": "1=", "solution": ""}\n{"prompt": "2=", "solution": "2"}\n')
    evaluate(flags(dataset="odd.jsonl"))
    assert "odd.jsonl: 1 solutions cannot be read, and all samples of their problems count as wrong" in caplog.text
    lines = read_lines(Path("out/samples.jsonl"))
    assert [line.reason for line in lines[:4]] == ["unparsable_gold"] * 4


def test_embedded_policy_needs_no_other_flag(capfd):
    evaluate(["--model", "embedded", "--limit", "3", "--resamples", "50"])
    lines = read_lines(Path("out/eval/samples.jsonl"))
    assert len(lines) == 24
    assert all(line.answer for line in lines)
    assert rows_of(capfd.readouterr().out)[0] == ["", "embedded"]


# Resuming


def test_finished_run_is_not_sampled_again_and_more_samples_are_added(flags, monkeypatch, capfd):
    evaluate(flags(num_samples=2))
    first = read_lines(Path("out/samples.jsonl"))
    printed = rows_of(capfd.readouterr().out)
    with monkeypatch.context() as patched:
        no_model(patched)
        evaluate(flags(num_samples=2))
    assert rows_of(capfd.readouterr().out) == printed
    evaluate(flags(num_samples=4))
    more = read_lines(Path("out/samples.jsonl"))
    assert [line for line in more if line.sample < 2] == first
    evaluate(flags(num_samples=4, output_dir="fresh"))
    assert [line.response for line in read_lines(Path("fresh/samples.jsonl"))] == [line.response for line in more]


def test_seed_and_batch_decide_what_they_should(flags):
    for name, changes in {"a": {}, "b": {"batch_size": 5}, "c": {"seed": 1}}.items():
        evaluate(flags(output_dir=name, **changes))
    a, b, c = (read_lines(Path(name, "samples.jsonl")) for name in "abc")
    assert [line.response for line in a] == [line.response for line in b]
    assert [line.response for line in a] != [line.response for line in c]


def test_killed_run_goes_on_where_it_stopped(model_dir, flags, monkeypatch):
    write_problems("many.jsonl", 40)
    arguments = flags("--batch_size", "2", dataset="many.jsonl")
    file = Path("out/samples.jsonl")
    child = preloaded().Process(target=evaluate, args=(arguments,))
    child.start()
    deadline = time.monotonic() + 300
    while not (file.exists() and file.read_bytes().count(b"\n") >= 4):
        assert child.is_alive(), child.exitcode
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.join()
    kept = read_lines(file)
    assert 4 <= len(kept) < 160  # killed in the middle
    with file.open("a") as cut:
        cut.write('{"problem": 3, "sam')

    graded = []
    verdicts = MathVerifyReward.verdicts

    def count(self, completions, solution):
        graded.extend(completions)
        return verdicts(self, completions, solution)

    monkeypatch.setattr(MathVerifyReward, "verdicts", count)
    evaluate(flags("--batch_size", "64", dataset="many.jsonl"))
    lines = read_lines(file)
    assert len(graded) == 160 - len(kept)
    assert len(lines) == len({line.id for line in lines}) == 160
    assert set(kept) <= set(lines)
    evaluate(flags(dataset="many.jsonl", output_dir="whole"))
    assert [line.response for line in lines] == [line.response for line in read_lines(Path("whole/samples.jsonl"))]


@pytest.mark.parametrize("graded", [0, 8])
@pytest.mark.parametrize("when", ["sampling", "scoring"])
def test_interrupted_run_says_how_many_samples_are_kept(flags, monkeypatch, capfd, when, graded):
    lines = command.sample_missing

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    def sampled(task, ids, *others):
        lines(task, ids[:graded], *others)
        if when == "sampling":
            stop()

    monkeypatch.setattr(command, "sample_missing", sampled)
    monkeypatch.setattr(command, "write_results", stop)
    with pytest.raises(SystemExit) as ended:
        evaluate(flags())
    assert ended.value.code == 130
    kept = "stopped; 8 samples are graded, in out: the same command resumes from them"
    said = kept if graded else "stopped before a sample was graded"
    assert capfd.readouterr().err.splitlines()[-1] == f"trl-entropy eval: {said}"


# Wrong values


def refusal(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        evaluate(arguments)
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    (line,) = errors.splitlines()
    start, _, reason = line.partition(": error: ")
    assert start == "trl-entropy eval"
    return reason


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (["--num_samples", "0"], "num_samples must be a whole number >= 1, got 0"),
        (["--temperature", "-1"], "temperature must be a number >= 0, got -1.0"),
        (["--top_p", "2"], "top_p must be above 0 and at most 1, got 2.0"),
        (["--limit", "0"], "limit must be at least 1, got 0"),
        (["--resamples", "1"], "resamples must be at least 2, got 1"),
        (["--dataset", "none.jsonl"], "there is no file 'none.jsonl'"),
        (["--prompt_column", "promt"], "unknown dataset column 'promt'. Did you mean 'prompt'?"),
        (["--benchmarks", "aime24"], "set --dataset_name or --benchmarks, not both"),
        (["--benchmarks_dir", "data"], "benchmarks_dir needs --benchmarks"),
        (["--vllm_gpu_memory_utilization", "1.5"], "vllm_gpu_memory_utilization must be above 0 and at most 1, got"),
        (["--template", "qwen"], "unknown template 'qwen'. Did you mean 'qwen-math'?"),
        (["--template", "chat"], "template='chat' needs a tokenizer with a chat template, but this one has none"),
        (["--answer_from", "bxed"], "answer_from takes one or more of boxed, "),
        (["--grading_deadline", "0"], "grading_deadline must be above 0 seconds, got 0.0"),
        (["--engine", "vllm"], "engine=vllm needs vLLM, which is not installed: pip install vllm, or set"),
        (["--engine", "sglang"], "argument --engine: invalid choice: 'sglang'"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (
            ["--max_new_tokens", "32765"],
            "the longest prompt has 4 tokens, which with max_new_tokens=32765 exceeds the model's context of 32768",
        ),
        (["--model", "./none"], "model must be a folder, got './none'"),
        (["--output_dir", "problems.jsonl"], "output_dir must be a folder, got 'problems.jsonl'"),
        (["--output_dir", "problems.jsonl/out"], "the folder 'problems.jsonl/out' cannot be created: Not a directory"),
        (["--num_sample", "3"], "unknown flag 'num_sample'. Did you mean 'num_samples'? Available: "),
        (["--compare", "a"], "argument --compare: expected 2 arguments"),
        (["--compare", "a", "b"], "'a' has no results.json of a finished evaluation"),
    ],
)
def test_wrong_value_is_refused_before_a_model_loads(flags, monkeypatch, capsys, wrong, line):
    no_model(monkeypatch)
    assert refusal(flags(*wrong), capsys).startswith(line)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "set --model_name_or_path to a folder, a name on the hub or 'embedded', or use --compare A B"),
        (["--model", "Qwen/Qwen2.5-0.5B"], "set --dataset_name or --benchmarks"),
        (["--model", "embedded", "--benchmarks", "aime"], "unknown benchmark 'aime'. Did you mean 'aime25'?"),
    ],
)
def test_missing_flag_is_named(capsys, arguments, line):
    assert refusal(arguments, capsys).startswith(line)


def test_other_settings_in_the_same_folder_are_refused(flags, monkeypatch, capsys):
    evaluate(flags())
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    with monkeypatch.context() as patched:
        no_model(patched)
        line = refusal(flags("--seed", "1", temperature=0.5), capsys)
        assert (
            line == "'out' holds samples with other settings: temperature was 1.0, now 0.5; seed was 0, now 1. Set "
            "another output_dir"
        )
        write_problems("problems.jsonl", 5)
        assert "problems was" in refusal(flags(), capsys)
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before


def test_other_weights_in_the_same_place_are_refused(flags, model_dir, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(model_dir).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    evaluate(flags("--model", str(copy), num_samples=1))
    capsys.readouterr()
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert "weights was" in refusal(flags("--model", str(copy), num_samples=1), capsys)


def test_defaults_depend_on_what_is_evaluated():
    def defaults(*arguments: str) -> tuple[int, int, int]:
        given = read(["--model", *arguments])
        return given.num_samples, given.max_new_tokens, given.batch_size

    assert defaults("embedded") == (8, 16, 64)
    assert defaults("m", "--benchmarks", "aime24") == (64, 3072, 64)
    assert defaults("m", "--dataset", "d", "--engine", "vllm") == (8, 3072, 4096)
    assert defaults("m", "--dataset", "embedded") == (8, 16, 64)
    assert read(["--model", "embedded"]).dataset == "embedded"


# Two evaluations


def write_folder(path: Path, correct: list[list[bool]], problems: str = "same", name: str = "set") -> None:
    """A finished evaluation of which only correctness is of interest."""
    line = Line(0, 0, "2+2=", "4", "a", "4", True, "correct", 3, -0.5, 0.25, 1.5)
    folder = Folder(path)
    folder.claim({})
    folder.append(
        replace(
            line,
            problem=p,
            sample=s,
            correct=right,
            answer="4" if right else "5",
            reason="correct" if right else "wrong",
        )
        for p, row in enumerate(correct)
        for s, right in enumerate(row)
    )
    settings = {"problems": problems, "num_samples": len(correct[0])}
    (path / "results.json").write_text(json.dumps({"results": {name: {}}, "settings": settings}))


def test_differences_by_hand(capsys):
    write_folder(Path("a"), [[True, False], [False, False], [True, True], [False, False]])
    write_folder(Path("b"), [[True, True], [True, False], [True, True], [False, False]])
    evaluate(["--compare", "a", "b"])
    output = capsys.readouterr().out
    assert "set: b - a" in output
    table = {row[0]: row[1:] for row in rows_of(output)[1:]}
    # 5 - 3 of 8 samples; better on two problems, worse on none: 2 * (1/2)^2
    assert table["avg@2"][0] == "+0.250"
    assert table["avg@2"][2:] == ["2", "0", "0.5"]
    # of one problem more
    assert table["pass@2"][0] == "+0.250"
    assert table["pass@2"][2:] == ["1", "0", "1"]
    assert table["ece_vote"][2:] == ["-", "-", "-"]
    evaluate(["--compare", "b", "a"])
    table = {row[0]: row[1:] for row in rows_of(capsys.readouterr().out)[1:]}
    assert table["avg@2"][0] == "-0.250"
    assert table["avg@2"][2:] == ["0", "2", "0.5"]


def test_of_different_numbers_of_samples_the_first_are_compared(capsys):
    write_folder(Path("a"), [[True, False, True]])
    write_folder(Path("b"), [[False, True]])
    evaluate(["--compare", "a", "b"])
    table = {row[0]: row[1:] for row in rows_of(capsys.readouterr().out)[1:]}
    assert table["avg@2"][0] == "+0.000"


def test_sets_in_common_are_compared(capsys):
    for first, names in (("a", ("aime24", "amc23")), ("b", ("amc23", "math500"))):
        for name in names:
            write_folder(Path(first, name), [[True, False]], problems=name, name=name)
    evaluate(["--compare", "a", "b"])
    output = capsys.readouterr().out
    assert "amc23: b - a" in output
    assert "aime24" not in output


def test_results_of_another_program_are_refused(capsys):
    for name in ("a", "b"):
        write_folder(Path(name), [[True, False]])
    Path("b/results.json").write_text(json.dumps({"results": {"gsm8k": {}}, "config": {}}))
    assert refusal(["--compare", "a", "b"], capsys).startswith("'b/results.json' was not written by this version of")


def test_evaluations_that_have_nothing_in_common_are_refused(capsys):
    write_folder(Path("a"), [[True, False]], problems="one")
    write_folder(Path("b"), [[True, False]], problems="other")
    line = refusal(["--compare", "a", "b"], capsys)
    assert line == "the problems of set are not the same in 'a' and 'b'"
    for first, name in (("c", "x"), ("c", "y"), ("d", "z")):
        write_folder(Path(first, name), [[True]], name=name)
    assert refusal(["--compare", "c", "d"], capsys) == "'c' has x, y, but 'd' has z: they have no set in common"
