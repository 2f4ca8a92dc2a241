"""The command `trl-entropy data semantic-entropy`, with the embedded policy and the tiny model."""

import json
from math import log
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from trl_entropy.commands import cli
from trl_entropy.data import train_problems
from trl_entropy.lab.data.semantic_entropy import semantic_entropy
from trl_entropy.lab.evaluation.folder import Line, read_lines
from trl_entropy.lab.evaluation.scoring import read_samples
from trl_entropy.rewards import Verifier


pytestmark = pytest.mark.usefixtures("alone")


def measure(*more: str, num_samples: int = 4) -> list[dict]:
    same = ["--model", "embedded", "--output", "out.jsonl", "--output_dir", "samples", "--grading_workers", "1"]
    same.append("--overwrite")
    cli.main(["data", "semantic-entropy", *same, "--num_samples", str(num_samples), *more])
    return rows_of("out.jsonl")


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def column(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows]


def test_columns_are_those_of_the_samples(capsys):
    rows = measure()
    assert [(row["prompt"], row["solution"]) for row in rows] == [
        (row["prompt"], row["solution"]) for row in train_problems()
    ]
    samples = read_samples(Path("samples"), 4, Verifier(workers=1))
    assert column(rows, "accuracy") == samples.correct.mean(1).tolist()
    assert column(rows, "semantic_entropy") == pytest.approx(semantic_entropy(samples.answers), abs=1e-9)
    weighted = semantic_entropy(samples.answers, samples.logprobs)
    assert column(rows, "semantic_entropy_weighted") == pytest.approx(weighted, abs=1e-9)
    assert 0 < np.mean(column(rows, "accuracy")) < 1
    assert max(column(rows, "semantic_entropy")) <= log(4) + 1e-9
    assert f"accuracy: mean {np.mean(column(rows, 'accuracy')):.4f}" in capsys.readouterr().out


def test_what_is_drawn_is_not_drawn_again(monkeypatch):
    rows = measure()
    file = Path("samples/samples.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:41]) + lines[41][:20])  # as if it had been killed
    again = measure()
    # the 23 that are drawn again are another batch, whose log-probs may differ in their last digits
    weighted = "semantic_entropy_weighted"
    assert column(again, weighted) == pytest.approx(column(rows, weighted), abs=1e-6)
    assert [{**row, weighted: None} for row in again] == [{**row, weighted: None} for row in rows]
    assert set(lines[:41]) <= set(file.read_text().splitlines(keepends=True))
    before = read_lines(file)
    first = [Line(**json.loads(line)) for line in lines]
    assert {(line.id, line.response) for line in before} == {(line.id, line.response) for line in first}
    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))
        assert measure() == again
    measure(num_samples=5)
    assert {line for line in read_lines(file) if line.sample < 4} == set(before)


@pytest.mark.slow
def test_likelihood_of_whole_responses_and_sorting():
    rows = measure()
    summed = measure("--likelihood", "sum", "--sort")
    assert column(summed, "semantic_entropy") == sorted(column(rows, "semantic_entropy"))
    samples = read_samples(Path("samples"), 4, Verifier(workers=1))
    expected = semantic_entropy(samples.answers, samples.logprobs * samples.lengths)
    order = np.argsort(column(rows, "semantic_entropy"), kind="stable")
    assert column(summed, "semantic_entropy_weighted") == pytest.approx(expected[order], abs=1e-9)


def test_samples_of_an_evaluation_are_enough(monkeypatch, capsys):
    Path("rows.jsonl").write_text(
        "".join(
            json.dumps({"question": row["prompt"], "truth": {"answer": row["solution"]}, "accuracy": "old"}) + "\n"
            for row in train_problems()
        )
    )
    flags = ["--dataset", "rows.jsonl", "--prompt_column", "question", "--grading_workers", "1", "--limit", "5"]
    drawing = ["--num_samples", "4", "--max_new_tokens", "16", "--output_dir", "samples"]
    Path("plain.jsonl").write_text(
        "".join(
            json.dumps({"question": row["prompt"], "solution": row["solution"]}) + "\n" for row in train_problems()
        )
    )
    cli.main(["eval", "--model", "embedded", *flags, *drawing, "--dataset", "plain.jsonl", "--resamples", "2"])
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))
    verb = ["data", "semantic-entropy", *flags, "--solution_column", "truth.answer", "--output", "out.jsonl"]
    cli.main([*verb, "--samples", "samples"])
    rows = rows_of("out.jsonl")
    assert len(rows) == 5
    assert set(rows[0]) == {"question", "truth", "semantic_entropy", "semantic_entropy_weighted", "accuracy"}
    lines = read_lines(Path("samples/samples.jsonl"))
    assert column(rows, "accuracy") == [
        sum(line.correct for line in lines if line.problem == number) / 4 for number in range(5)
    ]

    def refusal(*more: str) -> str:
        with pytest.raises(SystemExit):
            cli.main([*verb, "--samples", "samples", "--overwrite", *more])
        return capsys.readouterr().err.strip()

    assert "holds samples of 5 problems that are not the dataset's 16" in refusal("--limit", "16")
    file = Path("samples/samples.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert refusal().endswith("the evaluation in 'samples' is not finished: run it again")


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ([], "set --model, or --samples to the folder of an evaluation"),
        (["--samples", "samples"], "set --dataset to the dataset of the samples"),
        (["--samples", "samples", "--dataset", "embedded"], "samples must be an output folder of `trl-entropy eval`"),
        (["--samples", "samples", "--dataset", "embedded", "--model", "embedded"], "set --samples or --model, not"),
        (["--model", "embedded", "--benchmarks", "math500"], "semantic-entropy takes --dataset, not --benchmarks"),
        (["--model", "embedded", "--num_samples", "1"], "num_samples must be at least 2, got 1"),
        (["--model", "embedded", "--likelihood", "max"], "invalid choice: 'max'"),
        (
            ["--model", "embedded", "--solution_column", "answer"],
            "unknown dataset column 'answer'.",
        ),
        (["--model", "./none", "--dataset", "embedded"], "model must be a folder, got './none'"),
    ],
)
def test_wrong_flags_are_refused_with_one_line(monkeypatch, capsys, wrong, line):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "semantic-entropy", "--output", "out.jsonl", *wrong])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("trl-entropy data semantic-entropy: error: ")
    assert line in error
    assert "\n" not in error
