"""Two processes share the problems and find what one process finds."""

import json
from pathlib import Path

import pytest
from processes import TESTS, run_script
from two_ranks import in_training

from trl_entropy.commands import cli
from trl_entropy.lab.evaluation.folder import read_lines


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [{"prompt": f"{n}{'1' * (n % 3)}=", "solution": str(n)} for n in range(5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def two(model_dir, problems, tmp_path_factory) -> Path:
    """The folder that two ranks have left."""
    folder = tmp_path_factory.mktemp("two")
    done = run_script(TESTS / "lab" / "evaluation" / "two_ranks.py", model_dir, problems, folder, ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("results: ") == 1  # the main process alone prints
    return folder


def test_ranks_sample_what_one_process_samples(two, model_dir, problems, tmp_path):
    flags = ["--model", model_dir, "--dataset", problems, "--output_dir", str(tmp_path), "--num_samples", "3"]
    cli.main(["eval", *flags, "--max_new_tokens", "4", "--answer_from", "last_number", "--resamples", "50"])
    assert {file.name for file in (two / "eval").iterdir()} == {file.name for file in tmp_path.iterdir()}
    shared, alone = (read_lines(folder / "samples.jsonl") for folder in (two / "eval", tmp_path))
    assert len(alone) == 15
    for line, expected in zip(shared, alone, strict=True):
        assert (line.id, line.response, line.reason) == (expected.id, expected.response, expected.reason)
        assert line.entropy == pytest.approx(expected.entropy, abs=1e-6)  # float32 in batches of other shapes


def test_callback_gives_all_ranks_what_one_process_finds(two, model_dir, tmp_path):
    first, second = (json.loads((two / f"rank_{rank}.json").read_text()) for rank in range(2))
    assert first == second  # exact
    alone = in_training(model_dir, tmp_path, rows=8)
    assert [row["step"] for row in first["logged"]] == [row["step"] for row in alone["logged"]] == [1, 2]
    assert first["before"] == pytest.approx(alone["before"], abs=1e-6)
