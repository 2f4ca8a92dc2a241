"""The command `trl-entropy data diversify`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from trl_entropy.commands import cli
from trl_entropy.lab.data.diversify import embed_encoder


THEMES = {
    "fruit": "apples pears baskets orchard",
    "trains": "rails stations speed arrive",
    "circles": "radius chord tangent arc",
    "coins": "heads tails tosses fair",
}


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def themes() -> str:
    """Thirty problems about fruit, and two about each other theme."""
    rows = [
        {"question": words + "!" * number, "theme": theme, "answer": number}
        for theme, words in THEMES.items()
        for number in range(30 if theme == "fruit" else 2)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


def diversify(*more: str) -> list[dict]:
    same = ["--dataset", "rows.jsonl", "--prompt_column", "question", "--output", "subset.jsonl", "--size", "4"]
    cli.main(["data", "diversify", *same, "--overwrite", *more])
    return [json.loads(line) for line in Path("subset.jsonl").read_text().splitlines()]


def table(output: str) -> dict[str, list[str]]:
    lines = [line for line in output.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {name: values for name, *values in cells}


def test_subset_covers_the_themes_and_keeps_the_columns(themes, capsys):
    subset = diversify()
    assert {row["theme"] for row in subset} == set(THEMES)
    assert all(set(row) == {"question", "theme", "answer"} for row in subset)
    printed = table(capsys.readouterr().out)
    assert [row[0] for row in printed.values()] == ["36", "4", "4"]
    of_all, chosen, drawn = (float(row[1].split(" ± ")[0]) for row in printed.values())
    assert chosen > max(of_all, drawn)
    assert float(printed["kmeans"][2]) < float(printed["5 random"][2].split(" ± ")[0])
    assert diversify() == subset


def test_random_subset_depends_on_the_seed(themes):
    first = diversify("--by", "random")
    assert len(first) == 4
    assert diversify("--by", "random") == first != diversify("--by", "random", "--seed", "1")


def test_one_problem_has_no_diversity(themes, capsys):
    assert len(diversify("--size", "1")) == 1
    assert table(capsys.readouterr().out)["kmeans"][:2] == ["1", "-"]


def test_encoder_gives_the_mean_of_the_last_hidden_states(model_dir):
    texts = ["1+2=", "a", "12345 - 6"]
    rows = embed_encoder(texts, model_dir)
    model, tokenizer = AutoModel.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    for row, text in zip(rows, texts, strict=True):  # one by one: without padding
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_embeddings_of_an_encoder_choose(model_dir, capsys):
    cli.main(
        ["data", "diversify", "--dataset", "embedded", "--size", "3", "--encoder", model_dir, "--output", "s.jsonl"]
    )
    assert len(Path("s.jsonl").read_text().splitlines()) == 3
    assert table(capsys.readouterr().out)["all"][0] == "16"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (["--size", "37"], "the size of a subset must be from 1 to 36, the number of problems, got 37"),
        (["--size", "0"], "the size of a subset must be from 1 to 36, the number of problems, got 0"),
        (["--by", "kmean"], "invalid choice: 'kmean'"),
        (["--encoder", "./none"], "encoder must be a folder, got './none'"),
    ],
)
def test_wrong_flags_are_refused_with_one_line(themes, capsys, wrong, line):
    with pytest.raises(SystemExit) as ended:
        diversify(*wrong)
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("trl-entropy data diversify: error: ")
    assert line in error
    assert "\n" not in error


def test_verbs_of_data_are_listed(capsys):
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", *arguments])
        assert ended.value.code == 0
        output = capsys.readouterr().out
        assert all(verb in output for verb in ("deduplicate", "decontaminate", "diversify", "semantic-entropy"))
