import json

import datasets
import pytest

from trl_entropy.data.problems import BENCHMARKS, Problem, problems_of, read_benchmark, read_dataset


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "file", "row", "problem"),
    [
        (
            "aime24",
            "aime24.jsonl",
            {"id": 60, "problem": "p", "question": "q", "solution": "long", "answer": "204"},
            Problem("p", "204"),
        ),
        ("aime24", "aime24/test.jsonl", {"problem": "p", "answer": "204"}, Problem("p", "204")),
        ("amc23", "amc23.jsonl", {"question": "q", "answer": 27.0}, Problem("q", "27")),
        ("amc23", "amc23.jsonl", {"question": "q", "answer": 2.5}, Problem("q", 2.5)),
        (
            "gsm8k",
            "gsm8k_test.jsonl",
            {"question": "q", "answer": "So 9 * 2 = 18.\n#### 18"},
            Problem("q", "So 9 * 2 = 18.\n#### 18"),
        ),
        (
            "math500",
            "math500.jsonl",
            {"problem": "p", "solution": "long", "answer": r"\frac12"},
            Problem("p", r"\frac12"),
        ),
        ("minerva", "minerva_math/test.jsonl", {"problem": "p", "solution": r"\boxed{4}"}, Problem("p", r"\boxed{4}")),
        (
            "olympiadbench",
            "olympiadbench.jsonl",
            {"question": "q", "solution": ["s"], "final_answer": ["2", "3"]},
            Problem("q", ["2", "3"]),
        ),
        (
            "aime25",
            "skywork_aime25.jsonl",
            {"prompt": [{"content": "p", "role": "user"}], "reward_model": {"ground_truth": "70", "style": "rule"}},
            Problem("p", "70"),
        ),
    ],
)
def test_layouts_of_benchmarks(tmp_path, name, file, row, problem):
    write(tmp_path / "data" / file, row)
    assert read_benchmark(name, str(tmp_path / "data")) == [problem]


def test_benchmarks_of_the_main_paper_are_there():
    assert {"aime24", "aime25", "amc23", "math500", "minerva"} <= set(BENCHMARKS)
    assert list(BENCHMARKS) == sorted(BENCHMARKS)


def test_conversation_with_more_than_the_problem_is_kept(tmp_path):
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
    write(tmp_path / "aime24.jsonl", {"prompt": prompt, "answer": "1"})
    assert read_benchmark("aime24", str(tmp_path)) == [Problem(prompt, "1")]


@pytest.mark.parametrize(
    ("name", "folder", "line"),
    [
        ("aime", ".", "unknown benchmark 'aime'. Did you mean 'aime25'?"),
        ("aime24", "none", "benchmarks_dir must be a folder, got .*none"),
        ("aime24", ".", "holds neither aime24.jsonl nor aime24/test.jsonl"),
        ("amc23", ".", "the benchmark 'amc23' needs a column problem or question or prompt and one of answer"),
    ],
)
def test_wrong_benchmark_is_refused(tmp_path, name, folder, line):
    write(tmp_path / "amc23.jsonl", {"problem": "p", "gold": "4"})
    with pytest.raises(ValueError, match=line):
        read_benchmark(name, str(tmp_path / folder))


def test_embedded_problems_are_the_held_out_ones():
    problems = read_dataset("embedded")
    assert len(problems) == 90
    assert problems[0].solution == f"${problems[0].prompt.removesuffix('=')}$"


def test_dataset_of_your_own(tmp_path):
    rows = {"question": ["1+1", "2+2"], "answer": ["2", "4"]}
    expected = [Problem("1+1", "2"), Problem("2+2", "4")]
    columns = {"prompt_column": "question", "solution_column": "answer"}
    dataset = datasets.Dataset.from_dict(rows)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.to_json(tmp_path / "rows.jsonl")
    dataset.to_csv(tmp_path / "rows.csv")
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(test=dataset).save_to_disk(tmp_path / "splits")
    for name in ("rows.parquet", "rows.jsonl", "saved", "splits"):
        assert read_dataset(str(tmp_path / name), **columns) == expected
    in_csv = [Problem(problem.prompt, int(problem.solution)) for problem in expected]
    assert read_dataset(str(tmp_path / "rows.csv"), **columns) == in_csv
    with pytest.raises(ValueError, match="splits' cannot be loaded: it has no split 'train'; available: test"):
        read_dataset(str(tmp_path / "splits"), split="train", **columns)


def test_wrong_column_is_refused():
    dataset = datasets.Dataset.from_dict({"prompt": ["1"], "answer": ["1"]})
    with pytest.raises(ValueError, match="unknown dataset column 'solution'. .*; set solution_column"):
        problems_of(dataset)
    with pytest.raises(ValueError, match="unknown dataset column 'promt'. Did you mean 'prompt'.*; set prompt_column"):
        problems_of(dataset, "promt", "answer")


def test_dataset_without_problems_is_refused():
    with pytest.raises(ValueError, match="the dataset is empty"):
        problems_of(datasets.Dataset.from_dict({"prompt": [], "solution": []}))
    with pytest.raises(ValueError, match="row 1 of the dataset has no prompt"):
        problems_of(datasets.Dataset.from_dict({"prompt": ["1", ""], "solution": ["1", "2"]}))
    with pytest.raises(ValueError, match="row 0 of the dataset has no prompt"):
        problems_of(datasets.Dataset.from_dict({"prompt": [None], "solution": ["1"]}))


def test_columns_inside_of_others():
    rows = [{"messages": [{"role": "user", "content": f"{n}="}], "gold": {"answer": n}} for n in range(2)]
    found = problems_of(datasets.Dataset.from_list(rows), "messages.0.content", "gold.answer")
    assert found == [Problem("0=", 0), Problem("1=", 1)]
    with pytest.raises(ValueError, match="Did you mean 'gold.answer'.*; set solution_column"):
        problems_of(datasets.Dataset.from_list(rows), "messages", "gold.anser")


def test_text_parts_are_one_string_for_the_chat_template():
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}]
    dataset = datasets.Dataset.from_dict({"prompt": [[{"role": "user", "content": parts}]], "solution": ["2"]})
    assert problems_of(dataset) == [Problem([{"role": "user", "content": "1+1="}], "2")]


@pytest.mark.parametrize("prompt", [None, "", [], [{"role": "user", "content": None}]])
def test_benchmark_without_a_prompt_is_refused(tmp_path, prompt):
    good = "p" if isinstance(prompt, str | None) else [{"role": "user", "content": "p"}]
    write(tmp_path / "aime24.jsonl", {"prompt": good, "answer": "1"}, {"prompt": prompt, "answer": "1"})
    with pytest.raises(ValueError, match="row 1 of the benchmark 'aime24' has no prompt in column 'prompt': drop it"):
        read_benchmark("aime24", str(tmp_path))


def test_problem_of_a_benchmark_in_parts_is_its_text(tmp_path):
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}]
    write(tmp_path / "aime24.jsonl", {"prompt": [{"role": "user", "content": parts}], "answer": "2"})
    assert read_benchmark("aime24", str(tmp_path)) == [Problem("1+1=", "2")]


@pytest.mark.parametrize("prompt", [5, ["1+1="]])
def test_prompt_that_is_neither_text_nor_messages_is_refused(prompt):
    with pytest.raises(ValueError, match="row 0 of the dataset has the prompt .*: give text, or messages"):
        problems_of(datasets.Dataset.from_dict({"prompt": [prompt], "solution": ["1"]}))


def test_column_inside_of_another_is_found_if_a_later_row_has_it():
    rows = datasets.Dataset.from_list(
        [{"prompt": "1+1=", "answer": None}, {"prompt": "1+2=", "answer": {"gold": "3"}}]
    )
    assert [problem.solution for problem in problems_of(rows, solution_column="answer.gold")] == [None, "3"]
