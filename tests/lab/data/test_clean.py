"""The commands `trl-entropy data deduplicate` and `decontaminate`."""

import json
from pathlib import Path

import datasets
import pytest

from trl_entropy.commands import cli
from trl_entropy.lab.data.selection import SHOWN, select


LONG = "a b c d e f g h i j k l m n"


pytestmark = pytest.mark.usefixtures("alone")


def write_rows(name: str, column: str, values: list) -> str:
    rows = [{"id": number, column: value} for number, value in enumerate(values)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def read_rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.strip()


def test_duplicates_are_left_out_with_the_reason(capsys):
    write_rows("rows.jsonl", "prompt", ["Find $x$.", "2+2=", "find x"])
    cli.main(["data", "deduplicate", "--dataset", "rows.jsonl", "--output", "new/clean.jsonl"])
    assert read_rows("new/clean.jsonl") == [{"id": 0, "prompt": "Find $x$."}, {"id": 1, "prompt": "2+2="}]
    assert capsys.readouterr().out.splitlines() == [
        "row 2 repeats row 0, similarity 1.00: find x",
        "1 of 3 problems are duplicates",
        "2 problems: new/clean.jsonl",
    ]


def test_near_duplicates_are_left_out_if_asked_for():
    write_rows("rows.jsonl", "question", ["a b c d e f", "a b c d e g"])
    same = [
        "data",
        "deduplicate",
        "--dataset",
        "rows.jsonl",
        "--prompt_column",
        "question",
        "--output",
        "clean.parquet",
    ]
    for more, number in (([], 2), (["--threshold", "0.6"], 1), (["--threshold", "0.6", "--ngram", "5"], 2)):
        cli.main([*same, "--overwrite", *more])
        assert len(datasets.Dataset.from_parquet("clean.parquet", cache_dir=f"{number}{len(more)}")) == number


def test_no_more_is_printed_than_asked_for(capsys):
    write_rows("rows.jsonl", "prompt", ["1"] * 6)
    cli.main(["data", "deduplicate", "--dataset", "rows.jsonl", "--output", "clean.jsonl", "--max_rows", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:2]] == ["row 1 ", "row 2 "]
    assert lines[2:] == ["... and 3 more", "5 of 6 problems are duplicates", "1 problems: clean.jsonl"]


def test_conversations_are_compared_by_their_problem():
    messages = [[{"role": "user", "content": content}] for content in ("One.", "Two.", "one")]
    write_rows("rows.jsonl", "prompt", messages)
    cli.main(["data", "deduplicate", "--dataset", "rows.jsonl", "--output", "clean.jsonl"])
    assert [row["id"] for row in read_rows("clean.jsonl")] == [0, 1]


def test_parts_of_a_message_are_compared_by_their_text():
    contents = [[{"type": "text", "text": part} for part in parts] for parts in (("One.",), ("Two.",), ("o", "ne"))]
    write_rows("rows.jsonl", "prompt", [[{"role": "user", "content": content}] for content in contents])
    cli.main(["data", "deduplicate", "--dataset", "rows.jsonl", "--output", "clean.jsonl"])
    assert [row["id"] for row in read_rows("clean.jsonl")] == [0, 1]


def test_prompts_that_are_numbers_are_refused(capsys):
    write_rows("rows.jsonl", "prompt", [5, 6])
    line = refusal(capsys, "deduplicate", "--dataset", "rows.jsonl", "--output", "clean.jsonl")
    assert line.endswith(
        "row 0 of the dataset has the prompt 5 in column 'prompt': give text, or messages with role "
        "and content, where content is text or parts of type text or image"
    )


def test_file_to_compare_with_that_lacks_a_prompt_is_refused(capsys):
    write_rows("rows.jsonl", "prompt", ["1"])
    write_rows("mine.jsonl", "question", ["1", None])
    flags = ["--dataset", "rows.jsonl", "--output", "clean.jsonl", "--against", "mine.jsonl"]
    line = refusal(capsys, "decontaminate", *flags)
    assert line.endswith("row 1 of 'mine.jsonl' has no prompt in column 'question': drop it")


def test_contaminated_problems_are_left_out_with_the_reason(capsys):
    Path("benchmarks").mkdir()
    rows = [{"problem": "1+1=", "answer": 2}, {"problem": f"Z {LONG}", "answer": 3}]
    Path("benchmarks/math500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_rows("mine.jsonl", "question", ["what is the own test?"])
    write_rows("rows.jsonl", "prompt", [f"{LONG} o", "Now: what is the OWN test", "w x y"])
    flags = ["--dataset", "rows.jsonl", "--output", "clean.jsonl", "--benchmarks_dir", "benchmarks"]
    cli.main(["data", "decontaminate", *flags, "--against", "math500", "mine.jsonl"])
    assert [row["id"] for row in read_rows("clean.jsonl")] == [2]
    assert capsys.readouterr().out.splitlines() == [
        f"row 0 shares with problem 1 of math500: 'a b c d e f g h i j k l m': {LONG} o",
        "row 1 shares with problem 0 of mine.jsonl: 'what is the own test': Now: what is the OWN test",
        "2 of 3 problems share words with a benchmark: math500 1, mine.jsonl 1",
        "1 problems: clean.jsonl",
    ]
    cli.main(["data", "decontaminate", *flags, "--against", "math500", "--ngram", "15", "--overwrite"])
    assert [row["id"] for row in read_rows("clean.jsonl")] == [0, 1, 2]


def test_selection_is_the_union_and_names_rows_of_the_whole():
    texts = ["w x", "W x.", LONG, "y z", "u v"]
    rows, lines = select(texts, threshold=1.0, benchmarks={"hard": [LONG]})
    assert rows == [0, 3, 4]
    assert [line.split(":")[0] for line in lines] == [
        "row 1 repeats row 0, similarity 1.00",
        "1 of 5 problems are duplicates",
        "row 2 shares with problem 0 of hard",
        "1 of 5 problems share words with a benchmark",
    ]
    assert select(texts) == ([0, 1, 2, 3, 4], [])
    rows, lines = select(texts, threshold=1.0, size=2, by="random")
    assert len(rows) == 2
    assert 1 not in rows
    assert lines[-1] == "2 of 4 problems are trained on, chosen by random"
    assert len(select(["1"] * 50, threshold=1.0)[1]) == SHOWN + 2
    with pytest.raises(ValueError, match="no problem of the dataset is left"):
        select([LONG], benchmarks={"hard": [LONG]})


@pytest.mark.parametrize(
    ("verb", "wrong", "line"),
    [
        ("deduplicate", ["--threshold", "2"], "threshold must be a similarity in (0, 1], got 2.0"),
        ("deduplicate", ["--prompt_column", "promt"], "unknown dataset column 'promt'. Did you mean 'prompt'?"),
        (
            "deduplicate",
            ["--output", "rows.txt"],
            "output must end in one of .csv, .json, .jsonl, .parquet, got 'rows",
        ),
        ("deduplicate", ["--dataset", "none.jsonl"], "there is no file 'none.jsonl'"),
        ("deduplicate", ["--max_rows", "-1"], "max_rows must be at least 0, got -1"),
        ("deduplicate", ["--against", "math500"], "unknown flag 'against'."),
        ("decontaminate", [], "the following arguments are required: --against"),
        ("decontaminate", ["--against", "math50"], "unknown benchmark 'math50'. Did you mean 'math500'?"),
        ("decontaminate", ["--against", "none.jsonl"], "there is no file 'none.jsonl'"),
        ("decontaminate", ["--against", "ids.jsonl"], "'ids.jsonl' needs a column problem or question or prompt"),
        (
            "decontaminate",
            ["--against", "math500", "--benchmarks_dir", "none"],
            "benchmarks_dir must be a folder, got",
        ),
    ],
)
def test_wrong_flags_are_refused_with_one_line(capsys, verb, wrong, line):
    write_rows("rows.jsonl", "prompt", ["1"])
    write_rows("ids.jsonl", "other", ["1"])
    found = refusal(capsys, verb, "--dataset", "rows.jsonl", "--output", "clean.jsonl", *wrong)
    assert found.startswith(f"trl-entropy data {verb}: error: ")
    assert line in found
    assert "\n" not in found
    assert not Path("clean.jsonl").exists()


def test_empty_problem_is_refused(capsys):
    write_rows("rows.jsonl", "prompt", ["1", " "])
    line = refusal(capsys, "deduplicate", "--dataset", "rows.jsonl", "--output", "clean.jsonl")
    assert line.endswith("row 1 of the dataset has no prompt in column 'prompt': drop it")
