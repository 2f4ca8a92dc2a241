"""Where the problems of `trl-entropy grpo` come from, and what is done to them before a model loads."""

import json
import logging
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import Dataset
from transformers import PreTrainedModel
from trl import TrlParser

from trl_entropy.commands import cli
from trl_entropy.commands.grpo import GRPOArguments, prepare
from trl_entropy.commands.sources import SourceArguments
from trl_entropy.data.problems import read_dataset
from trl_entropy.rewards import MathVerifyReward, ReasoningGymReward


REPOSITORY = Path(__file__).parent.parent
LONG = "a b c d e f g h i j k l m n"
BOX = r"Put your final answer within \boxed{}."
SHORT = '{"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}'


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path, chatty):
    monkeypatch.chdir(tmp_path)
    Path("chatty").symlink_to(chatty)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    level = logging.getLogger("trl_entropy").level
    yield
    logging.getLogger("trl_entropy").setLevel(level)


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("a model is loaded"))


@pytest.fixture
def dapo(no_model) -> str:
    """Problems in the layout of DAPO-Math-17k: a conversation, and the solution inside of another column."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Solve it. {number}="}],
            "reward_model": {"ground_truth": str(number), "style": "rule"},
            "extra_info": {"index": str(number)},
        }
        for number in range(12)
    ]
    return write_rows("dapo.jsonl", rows)


def write_rows(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def flags(*more: str, dataset: str = "embedded") -> list[str]:
    base = ["--output_dir", "out", "--report_to", "none", "--use_cpu", "true", "--bf16", "false"]
    base += ["--gradient_checkpointing", "false", "--per_device_train_batch_size", "8", "--num_generations", "4"]
    return [*base, "--model_name_or_path", "chatty", "--dataset_name", dataset, *more]


def refusal(*more: str, dataset: str = "embedded") -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is checked by who calls)
        prepare(flags(*more, dataset=dataset))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Columns and messages


def test_solution_inside_of_another_column(dapo):
    job = prepare(flags("--solution_column", "reward_model.ground_truth", dataset=dapo))
    assert job.train_dataset[3]["solution"] == "3"
    assert job.train_dataset[3]["prompt"] == [{"role": "user", "content": "Solve it. 3="}]
    assert job.train_dataset[3]["reward_model"]["style"] == "rule"


def test_prompt_inside_of_a_conversation_is_text(dapo):
    columns = ["--prompt_column", "prompt.0.content", "--solution_column", "reward_model.ground_truth"]
    assert prepare(flags(*columns, dataset=dapo)).train_dataset[3]["prompt"] == "Solve it. 3="
    job = prepare(flags(*columns, "--system_prompt", "Be brief.", dataset=dapo))
    assert [message["content"] for message in job.train_dataset[3]["prompt"]] == ["Be brief.", "Solve it. 3="]


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_text_parts_are_one_string_for_the_chat_template(no_model, streaming):
    parts = [[{"type": "text", "text": f"{number}"}, {"type": "text", "text": "="}] for number in range(8)]
    rows = [{"prompt": [{"role": "user", "content": content}], "solution": "1"} for content in parts]
    write_rows("rows.jsonl", rows)
    more = ["--dataset_streaming", streaming, "--max_steps", "1", "--eval_dataset_name", "rows.jsonl"]
    job = prepare(flags(*more, dataset="rows.jsonl"))
    for problems in (job.train_dataset, job.eval_dataset):
        assert list(problems)[3]["prompt"] == [{"role": "user", "content": "3="}]


def test_parts_beside_images_stay(no_model):
    content = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    row = {"prompt": [{"role": "user", "content": content}], "solution": "1"}
    write_rows("rows.jsonl", [row] * 8)
    (found,) = prepare(flags(dataset="rows.jsonl")).train_dataset[0]["prompt"]
    assert [part["type"] for part in found["content"]] == ["image", "text"]


def test_row_that_has_nothing_inside_of_a_column_is_named(no_model):
    rows = [{"chat": [{"content": "1="}], "solution": "1"}, {"chat": [], "solution": "1"}]
    write_rows("rows.jsonl", rows * 4)
    line = refusal("--prompt_column", "chat.0.content", dataset="rows.jsonl")
    assert line == "row 1 of the dataset has no prompt in column 'chat.0.content': drop it"


def test_unknown_column_inside_of_another_names_the_nearest(dapo):
    line = refusal("--solution_column", "reward_model.groundtruth", dataset=dapo)
    assert "'reward_model.groundtruth'. Did you mean 'reward_model.ground_truth'?" in line
    assert line.endswith("set solution_column")


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_instruction_is_appended(no_model, chat):
    rows = [{"prompt": f"{number}=", "solution": str(number)} for number in range(8)]
    write_rows("rows.jsonl", rows)
    job = prepare(flags("--instruction", BOX, "--eval_dataset_name", "rows.jsonl", *chat, dataset="rows.jsonl"))
    text = f"3=\n{BOX}"
    for problems in (job.train_dataset, job.eval_dataset):
        assert problems[3]["prompt"] == ([{"role": "user", "content": text}] if chat else text)


def test_instruction_after_a_conversation_is_refused(dapo):
    line = refusal("--solution_column", "reward_model.ground_truth", "--instruction", BOX, dataset=dapo)
    assert line.startswith("instruction, chat and system_prompt need text prompts")


# Selection


def test_duplicates_benchmarks_and_the_rest_of_a_subset_are_left_out(no_model, caplog):
    caplog.set_level(logging.INFO, "trl_entropy")
    Path("benchmarks").mkdir()
    write_rows("benchmarks/aime24.jsonl", [{"problem": LONG, "answer": 1}])
    prompts = [*(f"How much is {number}?" for number in range(10)), "how much is 3", f"0 {LONG}"]
    write_rows("rows.jsonl", [{"question": prompt, "answer": "1"} for prompt in prompts])
    columns = ["--prompt_column", "question", "--solution_column", "answer"]
    clean = ["--deduplicate", "true", "--decontaminate", "aime24", "--benchmarks_dir", "benchmarks"]
    job = prepare(flags(*columns, *clean, dataset="rows.jsonl"))
    assert job.train_dataset["prompt"][:] == prompts[:10]
    assert "row 10 repeats row 3, similarity 1.00: how much is 3" in caplog.text
    assert "row 11 shares with problem 0 of aime24: 'a b c d e f g h i j k l m'" in caplog.text
    job = prepare(flags(*columns, *clean, "--subset_size", "6", "--subset_by", "random", dataset="rows.jsonl"))
    assert len(job.train_dataset) == 6
    assert set(job.train_dataset["prompt"]) < set(prompts[:10])
    assert "6 of 10 problems are trained on, chosen by random" in caplog.text


def test_near_duplicates_are_left_out_if_asked_for(no_model):
    write_rows("rows.jsonl", [{"prompt": f"a b c d e f g h {letter}", "solution": "1"} for letter in "uvwxyz"] * 2)
    same = ["--deduplicate", "true"]
    assert len(prepare(flags(*same, dataset="rows.jsonl")).train_dataset) == 6
    # 6 of 8 3-grams are shared
    assert len(prepare(flags(*same, "--duplicate_threshold", "0.76", dataset="rows.jsonl")).train_dataset) == 6
    line = refusal(*same, "--duplicate_threshold", "0.75", dataset="rows.jsonl")
    assert line.startswith("a rollout batch needs 2 prompts")  # one is left


def test_subset_depends_on_its_own_seed_alone(no_model):
    def chosen(*more: str) -> list[str]:
        job = prepare(flags("--subset_size", "5", "--subset_by", "random", *more))
        assert len(job.eval_dataset) == 90  # held-out problems are left alone
        return job.train_dataset["prompt"][:]

    assert chosen() == chosen("--seed", "7") != chosen("--dataset_seed", "1")


def test_kmeans_subset(no_model):
    assert len(prepare(flags("--subset_size", "5")).train_dataset) == 5


# Problems that are drawn


def test_drawn_problems_have_the_scorer_of_their_task(no_model):
    pytest.importorskip("reasoning_gym")
    drawn = ["--dataset_settings", SHORT, "--dataset_size", "40", "--eval_dataset_size", "10"]
    job = prepare(flags(*drawn, "--eval_strategy", "steps", dataset="reasoning-gym:chain_sum"))
    (reward,) = job.reward_funcs
    assert isinstance(reward, ReasoningGymReward)
    assert (len(job.train_dataset), len(job.eval_dataset)) == (40, 10)
    assert not set(job.train_dataset["prompt"]) & set(job.eval_dataset["prompt"])
    boxed = [rf"\boxed{{{row['solution']}}}" for row in job.eval_dataset]
    assert reward(boxed, job.eval_dataset["reasoning_gym"]) == [1.0] * 10
    named = prepare(flags(*drawn, "--reward_funcs", "math_verify_reward", dataset="reasoning-gym:chain_sum"))
    assert isinstance(named.reward_funcs[0], MathVerifyReward)
    assert named.train_dataset.to_list() == job.train_dataset.to_list()
    assert named.eval_dataset is None


def test_default_size_and_settings_of_a_recipe(no_model):
    pytest.importorskip("reasoning_gym")
    recipe = {"dataset_settings": {"min_terms": 2, "max_terms": 2}, "answer_from": ["last_number"]}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    job = prepare(flags("--config", "recipe.yaml", dataset="reasoning-gym:chain_sum"))
    assert len(job.train_dataset) == 1000
    assert all(len(prompt.split(": ")[1].split()) == 4 for prompt in job.train_dataset["prompt"])
    assert job.reward_funcs[0].answer_from == ("last_number",)


def test_embedded_policy_is_trained_on_drawn_problems():
    pytest.importorskip("reasoning_gym")
    more = ["--dataset_settings", SHORT, "--dataset_size", "20", "--eval_dataset_size", "5", "--answer_from"]
    more += ["last_number", "--max_completion_length", "8", "--max_steps", "1", "--save_strategy", "no"]
    more += ["--model_name_or_path", "embedded"]
    cli.main(["grpo", *flags(*more, "--logging_steps", "1", dataset="reasoning-gym:chain_sum")])
    (row,) = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines() if '"reward"' in line]
    assert 0 <= row["reward"] <= 1
    assert "rewards/reasoning_gym_reward/unreadable" in row


# What is refused


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (["--subset_by", "kmean"], "unknown subset_by 'kmean'. Did you mean 'kmeans'? Available: kmeans, random"),
        (["--subset_size", "0"], "subset_size must be at least 1, got 0"),
        (["--subset_size", "17"], "the size of a subset must be from 1 to 16, the number of problems, got 17"),
        (["--duplicate_threshold", "0.9"], "duplicate_threshold needs deduplicate"),
        (["--duplicate_threshold", "1.5"], "duplicate_threshold must be a similarity in (0, 1], got 1.5"),
        (["--benchmarks_dir", "."], "benchmarks_dir needs decontaminate"),
        (["--decontaminate", "aime2"], "unknown benchmark 'aime2'. Did you mean 'aime2"),
        (["--decontaminate", "aime24", "--benchmarks_dir", "none"], "benchmarks_dir must be a folder, got 'none'"),
        (["--decontaminate", "none.jsonl"], "there is no file 'none.jsonl'"),
        (["--deduplicate", "true", "--dataset_streaming", "true"], "leave out dataset_streaming"),
        (["--dataset_size", "5"], "dataset_size only applies to drawn problems: set dataset_name to reasoning-gym:T"),
        (["--dataset_settings", "{}"], "dataset_settings only applies to drawn problems"),
        (["--reward_funcs", "reasoning_gym_reward"], "reasoning_gym_reward scores its own problems: set dataset_name"),
    ],
)
def test_wrong_flag_is_refused_with_one_line(no_model, wrong, line):
    assert line in refusal(*wrong)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (["--dataset_name", "reasoning-gym:chain_som"], "unknown task of reasoning-gym 'chain_som'. Did you mean"),
        (["--dataset_settings", '{"terms": 2}'], "the task 'chain_sum' of reasoning-gym does not accept {'terms': 2"),
        (["--dataset_settings", "[1]"], "dataset_settings must be a mapping, got [1]"),
        (["--dataset_settings", "{"], "dataset_settings must be a YAML mapping or a JSON object, got '{'"),
        (["--dataset_size", "0"], "dataset_size must be at least 1, got 0"),
        (["--dataset_settings", SHORT, "--eval_dataset_size", "200"], "too few different problems to hold out 200"),
    ],
)
def test_wrong_drawing_is_refused_with_one_line(no_model, wrong, line):
    pytest.importorskip("reasoning_gym")
    assert line in refusal(*wrong, dataset="reasoning-gym:chain_sum")


def test_split_of_a_dataset_that_has_none_is_refused(no_model):
    Dataset.from_list([{"prompt": f"{number}=", "solution": "1"} for number in range(8)]).save_to_disk("saved")
    write_rows("rows.jsonl", [{"prompt": f"{number}=", "solution": "1"} for number in range(8)])
    for name in ("rows.jsonl", "saved", "embedded"):
        line = f"the dataset {name!r} has no split 'tran': leave it out"
        assert refusal("--dataset_train_split", "tran", dataset=name) == line
        for split in ("train", "test"):
            prepare(flags("--dataset_train_split", split, dataset=name))
    for held_out in ("rows.jsonl", "embedded"):
        line = f"the dataset {held_out!r} has no split 'tran': leave it out"
        given = ["--dataset_test_split", "tran", "--eval_dataset_name", held_out]
        assert refusal(*given, dataset="rows.jsonl") == line
        with pytest.raises(ValueError, match="has no split 'tran'"):
            read_dataset(held_out, split="tran")


# Recipes that name a dataset


COLUMNS = {
    "qwen2.5_math_7b_dapo_math": {"prompt": [], "reward_model": {"ground_truth": ""}},
    "qwen2.5_math_7b_dapo_math_616": {"prompt": [], "reward_model": {"ground_truth": ""}},
    "qwen2.5_0.5b_gsm8k": {"question": "", "answer": ""},
    "qwen2.5_1.5b_math": {"problem": "", "level": "", "type": "", "solution": ""},
    "qwen2.5_1.5b_numinamath": {"problem": "", "solution": "", "messages": []},
    "r1_distill_1.5b_deepscaler": {"problem": "", "answer": "", "solution": ""},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_recipe_names_columns_of_its_dataset(no_model, monkeypatch, name):
    question = [{"role": "user", "content": "1+{}="}]
    filled = {"question": "1+{}=", "problem": "1+{}=", "prompt": question}

    def row(number: int) -> dict:
        columns = {**COLUMNS[name], **{key: filled[key] for key in COLUMNS[name] if key in filled}}
        return json.loads(json.dumps(columns).replace("{}", str(number)))

    recipe = yaml.safe_load((REPOSITORY / "recipes" / f"{name}.yaml").read_text())
    rows = recipe.get("subset_size", 0) + 100
    write_rows("rows.jsonl", [row(number) for number in range(rows)])
    Path("benchmarks").mkdir()
    for benchmark in recipe.get("decontaminate", []):
        write_rows(f"benchmarks/{benchmark}.jsonl", [{"problem": LONG, "answer": "1"}])
    here = {"dataset_name": "rows.jsonl", "dataset_config": None, "model_name_or_path": "chatty"}
    here |= {"benchmarks_dir": "benchmarks"} if "decontaminate" in recipe else {}
    here |= {"subset_by": "random"} if "subset_size" in recipe else {}
    Path("recipe.yaml").write_text(yaml.safe_dump({**recipe, **here, "bf16": False, "use_cpu": True}))
    job = prepare(["--config", "recipe.yaml", "--report_to", "none"])
    assert len(job.train_dataset) == recipe.get("subset_size", rows)
    assert {"prompt", "solution"} <= set(job.train_dataset.column_names)


# Help


def test_help_of_every_flag_is_its_text_in_the_docstring():
    for arguments in (SourceArguments, GRPOArguments):
        text = " ".join(arguments.__doc__.split())
        parser = TrlParser((arguments,))
        own = [name for name in arguments.__annotations__ if f" {name} (`" in text]
        assert len(own) > 5
        for action in parser._actions:
            if action.dest in own:
                assert action.help.split(" (default:")[0].strip() in text.replace("[`", "").replace("`]", "")
