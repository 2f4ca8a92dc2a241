import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
import yaml
from datasets import Dataset
from processes import run_script
from safetensors.torch import load_file
from toy import logged, parameters, same
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl.rewards import accuracy_reward

import trl_entropy.commands.grpo
from trl_entropy.commands import cli
from trl_entropy.commands.grpo import _resumes_from, prepare, says_where, train
from trl_entropy.commands.recipe import read_recipe
from trl_entropy.data import EMBEDDED_POLICY, held_out_problems, train_problems
from trl_entropy.rewards import MathVerifyReward, last_number_reward, math_verify_reward


REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Work in a folder of the test's own, and leave the search path, the loggers and the caches as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    level = logging.getLogger("trl_entropy").level
    yield
    logging.getLogger("trl_entropy").setLevel(level)


@pytest.fixture
def no_model(monkeypatch):
    """Fail as soon as a model would be loaded."""

    def load(*args, **kwargs):
        pytest.fail("a model is loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    monkeypatch.setattr(trl_entropy.commands.grpo, "EntropyGRPOTrainer", load)


def write_rows(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def rows(number: int = 8, **columns) -> list[dict]:
    """Rows of a dataset; a text with `{}` becomes another one in every row."""
    columns = {"prompt": "{}=", "solution": "{}", **columns}
    return [
        {name: value.format(n) if isinstance(value, str) else value for name, value in columns.items()}
        for n in range(number)
    ]


def flags(*more: str, dataset: str | None = None, model: str = "embedded") -> list[str]:
    """A right command line on the CPU, and more."""
    base = ["--output_dir", "out", "--report_to", "none", "--use_cpu", "true", "--bf16", "false"]
    base += ["--gradient_checkpointing", "false", "--per_device_train_batch_size", "8", "--num_generations", "4"]
    source = ["--model_name_or_path", model, "--dataset_name", dataset] if dataset else []
    return [*base, *source, *more]


# What is refused: flags, and what the line must say


WRONG_VALUES = [
    (["--positive_advantage_coef", "-1"], "positive_advantage_coef must be a number >= 0, got -1"),
    (["--negative_advantage_coef", "-0.5"], "negative_advantage_coef must be a number >= 0, got -0.5"),
    (["--positive_advantage_coef", "nan"], "positive_advantage_coef must be a number >= 0, got nan"),
    (["--positive_advantage_coef", "much"], "--positive-advantage-coef: invalid float value: 'much'"),
    (["--entropy_control", "entropy_guided", "--entropy_target", "0"], "entropy_target must be > 0, got 0"),
    (["--entropy_control", "entropic", "--entropy_target", "-0.2"], "entropy_target must be > 0, got -0.2"),
    (["--entropy_control", "entropic", "--entropy_target_ratio", "0"], "entropy_target_ratio must be > 0, got 0"),
    (["--entropy_target_ratio", "0.5"], "entropy_target_ratio=0.5 has nothing to act on: set entropy_control"),
    (
        ["--entropy_control", "stage", "--positive_advantage_coef", "0.5"],
        "leave positive_advantage_coef unset",
    ),
    (["--entropy_control", "entropic", "--use_adaptive_entropy", "true"], "would both steer entropy: keep one"),
    (["--controllers", '{"m": {"law": "pi"'], "controllers must be a YAML mapping or a JSON object, got"),
    (
        ["--token_weights", "sign"],
        "token_weights must be a YAML mapping or a JSON object, got 'sign' (for a rule with its defaults write "
        '{"sign": {}})',
    ),
    (["--loss_terms", "[1]"], "loss_terms must be a mapping, got [1]"),
    (["--controllers", '{"m": {"knob": "entropy_coef"}}'], "controllers.m has no law; available: bang_bang"),
    (["--off_policy_updates", "0"], "off_policy_updates must be a whole number >= 1, got 0"),
    (["--off_policy_updates", "1.5"], "--off-policy-updates: invalid int value: '1.5'"),
    (["--off_policy_updates", "3", "--num_iterations", "2"], "off_policy_updates=3 does not fit num_iterations=2"),
    (
        ["--off_policy_updates", "2", "--steps_per_generation", "3"],
        "off_policy_updates=2 needs steps_per_generation=2",
    ),
    (["--off_policy_updates", "17"], "a rollout batch needs 34 prompts"),
    (["--num_generations", "3"], "must be divisible by num_generations (3)"),
    (
        ["--model_name_or_path", "./missing", "--dataset_name", "embedded"],
        "model_name_or_path must be a folder, got './missing'",
    ),
    (["--dataset_name", "embedded"], "model_name_or_path=None and dataset_name='embedded': set both, or neither"),
    (["--model_name_or_path", "org/model"], "model_name_or_path='org/model' and dataset_name=None: set both"),
    (["--reward_funcs", "math.pi"], "reward 'math.pi' must be a class or a function, got 3.14"),
    (["--reward_funcs", "nowhere.reward"], "reward 'nowhere.reward' cannot be imported: No module named 'nowhere'"),
    (
        ["--reward_funcs", "trl_entropy.rewards.no"],
        "cannot be imported: module 'trl_entropy.rewards' has no attribute",
    ),
    (["--config"], "--config must be a YAML file, but '' does not exist"),
    (["--config", "missing.yaml"], "--config must be a YAML file, but 'missing.yaml' does not exist"),
    (["--learning_rate"], "--learning-rate: expected one argument"),
    (["--learning_rate", "-1"], "learning_rate must be a number >= 0, got -1"),
    (["--learning_rate", "nan"], "learning_rate must be a number >= 0, got nan"),
    (["--temperature", "0"], "temperature must be a number > 0, got 0"),
    (["--temperature", "-1"], "temperature must be a number > 0, got -1"),
    (["--epsilon", "-1"], "epsilon must be a number >= 0, got -1"),
    (["--max_completion_length", "0"], "max_completion_length must be a whole number >= 1, got 0"),
    (["--steps_per_generation", "0"], "steps_per_generation must be a whole number >= 1, got 0"),
    (["--top_p", "2"], "top_p must be a number >= 0 and <= 1, got 2"),
    (["--output_dir="], "output_dir must be a new or an existing folder, got ''"),
    (["--resume_from_checkpoint", "gone"], "resume_from_checkpoint must be a checkpoint's folder or true, got 'gone'"),
    (
        ["--resume_from_checkpoint", "true"],
        "resume_from_checkpoint=true, but output_dir='out' has no checkpoint: leave it out to start from the model",
    ),
    (["--pass_at_k_every", "0"], "pass_at_k_every must be at least 1, got 0"),
    (["--pass_at_k_every", "5", "--pass_at_k_samples", "0"], "pass_at_k_samples must be at least 1, got 0"),
]

WRONG_NAMES = [
    (["--entropy_contrl", "none"], "unknown flag 'entropy_contrl'. Did you mean 'entropy_control'?"),
    (
        ["--entropy_control", "entropyguided"],
        "unknown entropy_control 'entropyguided'. Did you mean 'entropy_guided'?",
    ),
    (
        ["--controllers", '{"m": {"law": "bangbang", "knob": "entropy_coef"}}'],
        "unknown law in controllers.m 'bangbang'. Did you mean 'bang_bang'? Available: bang_bang, constant, epoch, "
        "integral, pi, ratchet, schedule, stage, switch",
    ),
    (
        ["--controllers", '{"m": {"law": "pi", "knob": "epsilon_hi"}}'],
        "unknown knob in controllers.m 'epsilon_hi'. Did you mean 'epsilon_high'? Available: entropy_coef,",
    ),
    (
        ["--controllers", '{"m": {"law": "pi", "knob": "entropy_coef", "kpp": 1}}'],
        "unknown setting of controllers.m 'kpp'. Did you mean 'kp'?",
    ),
    (
        ["--token_weights", '{"confident_sin": {}}'],
        "unknown name in token_weights 'confident_sin'. Did you mean 'confident_sign'?",
    ),
    (
        ["--token_weights", '{"confident_sign": {"alpa": 1}}'],
        "unknown parameter of token_weights.confident_sign 'alpa'. Did you mean 'alpha'?",
    ),
    (
        ["--loss_terms", '{"confident_surogate": {}}'],
        "unknown name in loss_terms 'confident_surogate'. Did you mean 'confident_surrogate'?",
    ),
    (["--loss_type", "grpoo"], "unknown loss_type 'grpoo'. Did you mean 'grpo'? Available: bnpo, cispo, dapo,"),
    (["--report_to", "wandbb"], "unknown report_to 'wandbb'. Did you mean 'wandb'? Available: all,"),
    (
        ["--reward_funcs", "math_verify"],
        "unknown reward 'math_verify'. Did you mean 'math_verify_reward'? Available: accuracy_reward,",
    ),
]


def refusal(arguments: list[str]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is checked by who calls)
        prepare(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def case_name(part: list[str] | str) -> str:
    return " ".join(part) if isinstance(part, list) else ""


@pytest.mark.parametrize(("wrong", "line"), [*WRONG_VALUES, *WRONG_NAMES], ids=case_name)
def test_wrong_flag_is_refused_with_one_line(no_model, wrong, line):
    assert line in refusal(flags(*wrong))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            ["--prompt_column", "promt"],
            "unknown dataset column 'promt'. Did you mean 'prompt'? Available: prompt, sol",
        ),
        (["--solution_column", "solutions"], "Did you mean 'solution'? Available: prompt, solution; set solution_col"),
        (
            ["--eval_strategy", "steps"],
            "eval_strategy is on, but train.jsonl is a single file: set eval_dataset_name to",
        ),
        (
            ["--pass_at_k_every", "5"],
            "pass_at_k_every is given, but train.jsonl is a single file: set eval_dataset_name to the",
        ),
        (["--eval_dataset_name", "test.jsonl"], "there is no file 'test.jsonl'"),
        (["--off_policy_updates", "8"], "a rollout batch needs 16 prompts (generation_batch_size=64, num_generation"),
    ],
)
def test_wrong_flag_on_a_local_dataset_is_refused_with_one_line(no_model, wrong, line):
    write_rows("train.jsonl", rows())
    assert line in refusal(flags(*wrong, dataset="train.jsonl"))


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.json", "folder/missing.parquet"])
def test_missing_file_is_refused_with_one_line(no_model, name):
    assert f"there is no file {name!r}" == refusal(flags(dataset=name))


def test_stream_needs_its_number_of_steps(no_model):
    write_rows("train.jsonl", rows())
    stream = ["--dataset_streaming", "true"]
    line = refusal(flags(*stream, dataset="train.jsonl"))
    assert line == "the train dataset is a stream of unknown length: set max_steps"
    prepare(flags(*stream, "--max_steps", "3", dataset="train.jsonl"))
    prepare(flags(*stream))  # the embedded problems are not read from a file


@pytest.mark.parametrize("name", ["file", "file/out"])
def test_output_dir_that_is_a_file_is_refused(no_model, name):
    Path("file").write_text("")
    assert refusal(flags("--output_dir", name)) == f"output_dir must be a new or an existing folder, got {name!r}"


def test_folder_without_a_checkpoint_is_not_resumed(no_model):
    Path("out").mkdir()
    resume = ["--resume_from_checkpoint", "true"]
    assert "output_dir='out' has no checkpoint" in refusal(flags(*resume))
    Path("out/checkpoint-2").mkdir()
    assert prepare(flags(*resume)).training.resume_from_checkpoint == "true"


@pytest.mark.parametrize(
    ("file", "reason"),
    [("adapter_config.json", "holds an adapter: merge it into its base"), ("other.json", "holds no config.json")],
)
def test_folder_without_a_model_is_refused(no_model, file, reason):
    Path("folder").mkdir()
    Path("folder", file).write_text("{}")
    more = ["--model_name_or_path", "folder", "--dataset_name", "embedded"]
    assert refusal(flags(*more)) == f"model_name_or_path='folder' {reason}"


@pytest.mark.parametrize("model", ["folder", "folder/checkpoint-1"])
def test_folder_of_the_model_is_not_written_over(no_model, model):
    Path(model).mkdir(parents=True)
    more = ["--model_name_or_path", model, "--dataset_name", "embedded", "--output_dir", "./folder/../folder"]
    assert "holds the model to train: choose another folder" in refusal(flags(*more))


def test_folder_of_the_dataset_is_not_written_into(no_model):
    Path("rows").mkdir()
    Path("rows/rows.jsonl").write_text('{"prompt": "1+1=", "solution": "2"}\n')
    more = ["--model_name_or_path", "model", "--dataset_name", "rows", "--output_dir", "rows/out"]
    assert "'rows/out' is inside the dataset 'rows': give another path" in refusal(flags(*more))


@pytest.mark.parametrize("word", ["false", "False", "no", "none"])
def test_resuming_can_be_turned_off(no_model, word, caplog):
    Path("out/checkpoint-2").mkdir(parents=True)
    Path("out/checkpoint-2/trainer_state.json").write_text("{}")
    assert _resumes_from(prepare(flags("--resume_from_checkpoint", word)).training) is None
    assert any("holds checkpoint-2 of another run" in message for message in caplog.messages)


REWARD = """
def named(completions, answer, **kwargs):
    return [0.0] * len(completions)

class Made:
    __name__ = "made"
    def __call__(self, completions, *, answer, level="easy", **kwargs):
        return [0.0] * len(completions)

made = Made()

async def patient(completions, answer, **kwargs):
    return [0.0] * len(completions)

def singular(completion, **kwargs):
    return [0.0] * len(completion)

def told(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, rollout_group, env_mask,
         policy_text, answer, **kwargs):
    assert len(answer) == len(rollout_group) == len(completions)
    return [0.0] * len(completions)

told.reads_rollout = True
"""


@pytest.mark.parametrize(("reward", "column"), [("named", "answer"), ("made", "answer"), ("patient", "answer")])
def test_reward_that_takes_a_column_that_is_not_there_is_refused(no_model, reward, column):
    Path("own_rewards.py").write_text(REWARD)
    sys.modules.pop("own_rewards", None)
    write_rows("train.jsonl", rows(anser="{}"))
    write_rows("test.jsonl", rows(answer="{}"))
    given = ["--reward_funcs", f"own_rewards.{reward}"]
    line = refusal(flags(*given, dataset="train.jsonl"))
    assert line == (
        f"unknown dataset column {column!r}. Did you mean 'anser'? Available: anser, solution (the reward {reward} "
        "takes it)"
    )
    prepare(flags(*given, dataset="test.jsonl"))
    held_out = ["--eval_dataset_name", "train.jsonl"]
    assert prepare(flags(*given, *held_out, dataset="test.jsonl")).eval_dataset is not None  # of no reward's concern
    assert refusal(flags(*given, *held_out, "--eval_strategy", "steps", dataset="test.jsonl")) == line


@pytest.mark.parametrize(
    ("parameters", "left"),
    [
        ("completions", "completion_ids, log_extra, log_metric, prompts, solution, trainer_state"),
        ("prompts, completions, solution", "completion_ids, log_extra, log_metric, trainer_state"),
        ("prompts, completions, completion_ids, trainer_state, log_extra, log_metric, solution", ""),
        ("completions, **kwargs", ""),
    ],
)
def test_reward_that_cannot_take_what_trl_gives_is_refused(no_model, parameters, left):
    Path("own_rewards.py").write_text(f"def own({parameters}):\n    return [0.0] * len(completions)\n")
    sys.modules.pop("own_rewards", None)
    given = flags("--reward_funcs", "own_rewards.own", dataset=write_rows("train.jsonl", rows()))
    if not left:
        prepare(given)
        return
    assert refusal(given) == (
        f"the reward own does not take {left}, which TRL gives each reward: add **kwargs to its parameters"
    )


def test_reward_that_takes_one_completion_is_refused(no_model):
    Path("own_rewards.py").write_text(REWARD)
    sys.modules.pop("own_rewards", None)
    write_rows("train.jsonl", rows(completion="{}"))
    line = refusal(flags("--reward_funcs", "own_rewards.singular", dataset="train.jsonl"))
    assert line.startswith("unknown dataset column 'completion'.")


def test_reward_is_called_with_all_that_counts_as_given(model_dir):
    Path("own_rewards.py").write_text(REWARD)
    sys.modules.pop("own_rewards", None)
    write_rows("train.jsonl", rows(answer="{}"))
    more = ["--reward_funcs", "own_rewards.told", "--max_completion_length", "4", "--max_steps", "1"]
    cli.main(["grpo", *flags(*more, "--save_strategy", "no", "--disable_tqdm", "true", dataset="train.jsonl")])


def test_column_that_the_reward_needs_is_missing(no_model):
    write_rows("train.jsonl", [{"prompt": "1=", "answer": "1"}] * 8)
    line = refusal(flags(dataset="train.jsonl"))
    assert line == "unknown dataset column 'solution'. Available: answer, prompt; set solution_column"


def test_reward_function_that_a_rollout_rule_names_is_one_of_the_run(no_model):
    write_rows("train.jsonl", rows())
    names = ["--reward_funcs", "math_verify_reward", "dapo_overlong_reward", "--rollout_rules"]
    prepare(flags(*names, '{"dynamic_sampling": {"by": "math_verify_reward"}}', dataset="train.jsonl"))
    line = refusal(flags(*names, '{"dynamic_sampling": {"by": "acc"}}', dataset="train.jsonl"))
    assert line.startswith("unknown reward function 'acc'. Available: ")
    assert line.endswith("math_verify_reward, soft_overlong_punishment_reward (in rollout_rules.dynamic_sampling)")


def test_pass_at_k_on_a_mixture_without_held_out_problems_is_refused_with_one_line(no_model):
    write_rows("train.jsonl", rows())
    mixture = {"model_name_or_path": "embedded"}
    mixture["datasets"] = [{"path": "json", "data_files": "train.jsonl", "split": "train"}]
    Path("recipe.yaml").write_text(yaml.safe_dump(mixture))
    line = refusal(flags("--config", "recipe.yaml", "--pass_at_k_every", "5"))
    assert line.startswith("pass_at_k_every is given, but the mixture has no split 'test': set the held-out problems")


@pytest.mark.parametrize(
    ("file", "flag", "message"),
    [
        ("train.jsonl", ["--dataset_train_split", "dev"], "the mixture has no split 'dev'; available: train: set "),
        ("none.jsonl", [], "the datasets of the mixture cannot be loaded: Unable to find "),
    ],
)
def test_mixture_that_cannot_be_trained_on_is_refused_with_one_line(no_model, file, flag, message):
    write_rows("train.jsonl", rows())
    mixture = {"model_name_or_path": "embedded", "datasets": [{"path": "json", "data_files": file, "split": "train"}]}
    Path("recipe.yaml").write_text(yaml.safe_dump(mixture))
    assert refusal(flags("--config", "recipe.yaml", *flag)).startswith(message)


def test_held_out_problems_of_a_mixture_are_not_trained_on(no_model):
    write_rows("train.jsonl", rows())
    mixture = {"model_name_or_path": "embedded", "test_split_size": 0.25, "eval_strategy": "steps"}
    mixture["datasets"] = [{"path": "json", "data_files": "train.jsonl", "split": "train"}]
    Path("recipe.yaml").write_text(yaml.safe_dump(mixture))
    first, second = (prepare(flags("--config", "recipe.yaml")) for _ in range(2))
    train, held_out = set(first.train_dataset["prompt"]), set(first.eval_dataset["prompt"])
    assert len(train) + len(held_out) == len(rows())
    assert not train & held_out
    assert held_out == set(second.eval_dataset["prompt"])  # as on another process


def test_one_saved_dataset_is_not_held_out_from_itself(no_model):
    Dataset.from_list(rows()).save_to_disk("saved")
    line = refusal(flags("--eval_strategy", "steps", dataset="saved"))
    assert line.startswith(
        "eval_strategy is on, but saved is a single dataset without splits: set eval_dataset_name to"
    )


def test_pass_at_k_needs_solutions_whatever_the_rewards_read(no_model):
    write_rows("train.jsonl", rows())
    write_rows("test.jsonl", rows(answer="{}+0"))
    more = ["--reward_funcs", "boxed_format_reward", "--eval_dataset_name", "test.jsonl", "--pass_at_k_every", "5"]
    job = prepare(flags(*more, "--solution_column", "answer", dataset="train.jsonl"))
    assert job.pass_at_k.problems[3].solution == "3+0"
    line = refusal(flags(*more, "--solution_column", "gold", dataset="train.jsonl"))
    assert line == "unknown dataset column 'gold'. Available: answer, prompt, solution; set solution_column"


@pytest.mark.parametrize("chat", [["--chat"], ["--system_prompt", "Be brief."]])
def test_chat_on_conversations_is_refused_with_one_line(no_model, chatty, chat):
    write_rows("train.jsonl", rows(prompt=[{"role": "user", "content": "1="}]))
    assert "need text prompts" in refusal(flags(*chat, dataset="train.jsonl"))
    job = prepare(flags(dataset="train.jsonl", model=chatty))
    assert job.train_dataset[0]["prompt"] == [{"role": "user", "content": "1="}]


@pytest.mark.parametrize("chat", [[], ["--chat"], ["--system_prompt", "Be brief."]])
@pytest.mark.parametrize("first", ["text", "a conversation"])
def test_text_beside_conversations_is_refused_with_one_line(no_model, chat, first):
    kinds = {"text": rows(3), "a conversation": rows(3, prompt=[{"role": "user", "content": "1="}])}
    other = next(kind for kind in kinds if kind != first)
    write_rows("train.jsonl", kinds[first] + kinds[other])
    assert refusal(flags(*chat, dataset="train.jsonl")) == (
        f"row 3 of the dataset has {other} in column 'prompt', and row 0 has {first}: give all prompts as text, or "
        "all as conversations"
    )


@pytest.mark.parametrize("chat", [[], ["--chat"], ["--system_prompt", "Be brief."]])
def test_conversations_need_a_chat_template(no_model, chatty, chat):
    written = rows() if chat else rows(prompt=[{"role": "user", "content": "1="}])
    given = [*chat, "--dataset_name", write_rows("train.jsonl", written)]
    line = "the prompts are conversations, and {}={!r} has no chat template: give prompts as text, without chat, "
    assert refusal(flags(*given, "--model_name_or_path", "embedded")).startswith(
        line.format("model_name_or_path", str(EMBEDDED_POLICY))
    )
    given += ["--model_name_or_path", chatty]
    prepare(flags(*given))
    prepare(flags(*given, "--reward_model_name_or_path", chatty))
    of_reward = refusal(flags(*given, "--reward_model_name_or_path", str(EMBEDDED_POLICY)))
    assert of_reward.startswith(line.format("reward_model_name_or_path", str(EMBEDDED_POLICY)))


def test_dry_run_fetches_no_tokenizer(no_model):
    given = flags("--chat", "--dry_run", "true", dataset=write_rows("train.jsonl", rows()))
    assert "has no chat template" in refusal(given)
    prepare([*given, "--model_name_or_path", "org/model"])


def test_held_out_conversations_need_a_chat_template_too(no_model):
    write_rows("test.jsonl", rows(prompt=[{"role": "user", "content": "1="}]))
    line = refusal(flags("--eval_dataset_name", "test.jsonl", dataset=write_rows("train.jsonl", rows())))
    assert line.startswith("the prompts are conversations, and model_name_or_path=")


def test_tokenizer_that_cannot_be_loaded_is_told_where_a_template_is_needed(no_model):
    line = refusal(flags("--chat", dataset=write_rows("train.jsonl", rows()), model="org/model"))
    assert line.startswith("the tokenizer of model_name_or_path='org/model' cannot be loaded: ")


def test_empty_dataset_is_refused_with_one_line(no_model, monkeypatch):
    monkeypatch.setattr(trl_entropy.data.files, "load_dataset", lambda *args, **kwargs: Dataset.from_list([]))
    assert refusal(flags(dataset="org/empty")) == "the dataset is empty"


@pytest.mark.parametrize(
    "content",
    [
        "entropy_contrl: none",
        "positive_advantage_coef: -1",
        "controllers: 3",
        "a: [1\nb: 2",
        "- a",
        "",
        "reward_funcs: [none]",
    ],
)
def test_wrong_recipe_is_refused_with_one_line(no_model, content):
    Path("recipe.yaml").write_text(content)
    refusal(flags("--config", "recipe.yaml"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.jsonl", ""), ("empty.json", "[]"), ("cut.jsonl", '{"prompt": ')],
)
def test_empty_or_broken_file_is_refused_with_a_line_that_names_it(no_model, name, content):
    Path(name).write_text(content)
    assert name in refusal(flags(dataset=name))


@pytest.mark.parametrize("name", ["./missing", "org/missing"])
def test_dataset_that_is_not_found_is_refused_with_a_line_that_names_it(no_model, name):
    assert name in refusal(flags(dataset=name))


def test_loading_a_model_would_be_seen(no_model):
    job = prepare(flags())
    with pytest.raises(pytest.fail.Exception, match="a model is loaded"):
        train(job)


@pytest.mark.parametrize(("wrong", "line"), WRONG_VALUES[:1] + WRONG_NAMES[:2] + WRONG_NAMES[-1:])
def test_command_line_ends_with_the_line_alone_and_status_2(no_model, capsys, wrong, line):
    with pytest.raises(SystemExit) as caught:
        cli.main(["grpo", *flags(*wrong)])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"trl-entropy grpo: error: {line}")
    assert err.count("\n") == 1


def test_command_in_a_process_of_its_own_ends_with_status_2():
    done = run_script(REPOSITORY / "trl_entropy" / "__main__.py", "grpo", "--positive_advantage_coef", "-1")
    assert done.returncode == 2
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]  # before it, there may be warnings of other packages
    assert line.startswith("trl-entropy grpo: error: positive_advantage_coef must be a number >= 0, got -1")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("trl-entropy grpo:") == 1


def test_unknown_verb_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train"])
    assert caught.value.code == 2
    assert "error: unknown verb 'train'. Available: check-rewards, compare," in capsys.readouterr().err


def test_help_names_every_verb_and_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("grpo", "compare", "ls", "fetch-smollm2", "make-chain-sum"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["grpo", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--entropy_control ", "--learning_rate ", "--system_prompt ", "--lora_r "))


# What is read


def test_without_a_model_and_a_dataset_the_embedded_ones_are_used(no_model, caplog):
    job = prepare(flags())
    assert job.model.model_name_or_path == str(EMBEDDED_POLICY)
    assert job.train_dataset.to_list() == train_problems().to_list()
    assert job.eval_dataset.to_list() == held_out_problems().to_list()
    (reward,) = job.reward_funcs
    assert isinstance(reward, MathVerifyReward)
    assert "training the embedded policy on its own problems" in caplog.text
    caplog.clear()
    named = prepare(flags("--model_name_or_path", "embedded"))
    assert named.model.model_name_or_path == str(EMBEDDED_POLICY)
    assert named.train_dataset.to_list() == train_problems().to_list()
    assert "embedded" not in caplog.text


def test_defaults_are_for_the_cpu_where_there_is_no_accelerator(no_model, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    training = prepare(["--output_dir", "out", "--report_to", "none", "--gradient_checkpointing", "false"]).training
    assert (training.use_cpu, training.bf16) == (True, False)


def test_local_files_are_read(no_model):
    expected = [{"prompt": f"{n}=", "solution": str(n)} for n in range(8)]
    Path("array.json").write_text(json.dumps(rows()))
    Dataset.from_list(rows()).to_parquet("table.parquet")
    for name in (write_rows("lines.jsonl", rows()), "array.json", "table.parquet"):
        job = prepare(flags(dataset=name))
        assert job.train_dataset.to_list() == expected, name
        assert job.eval_dataset is None


def test_held_out_file_is_read(no_model):
    write_rows("train.jsonl", rows())
    write_rows("test.jsonl", rows(prompt="{}+0="))
    job = prepare(flags("--eval_dataset_name", "test.jsonl", "--eval_strategy", "steps", dataset="train.jsonl"))
    assert job.train_dataset[3] == {"prompt": "3=", "solution": "3"}
    assert job.eval_dataset[3] == {"prompt": "3+0=", "solution": "3"}


def test_embedded_problems_can_train_another_model(no_model, model_dir):
    job = prepare(flags("--model_name_or_path", model_dir, "--dataset_name", "embedded"))
    assert job.model.model_name_or_path == model_dir
    assert job.train_dataset.to_list() == train_problems().to_list()


def test_columns_are_renamed_and_take_the_place_of_what_stood_there(no_model):
    columns = {"prompt": "not {}", "solution": "worked out {}", "question": "{}=", "answer": "{}", "level": "easy"}
    write_rows("train.jsonl", rows(**columns))
    job = prepare(flags("--prompt_column", "question", "--solution_column", "answer", dataset="train.jsonl"))
    assert job.train_dataset[3] == {"prompt": "3=", "solution": "3", "level": "easy"}


def test_solution_column_is_left_alone_by_rewards_that_do_not_read_it(no_model):
    write_rows("train.jsonl", [{"prompt": "1="}] * 8)
    job = prepare(flags("--reward_funcs", "think_format_reward", dataset="train.jsonl"))
    assert job.train_dataset.column_names == ["prompt"]


@pytest.mark.parametrize(
    ("chat", "system"),
    [
        (["--chat"], []),
        (["--system_prompt", "Be brief."], [{"role": "system", "content": "Be brief."}]),
        (["--chat", "--system_prompt", "Be brief."], [{"role": "system", "content": "Be brief."}]),
    ],
)
def test_problem_becomes_a_message(no_model, chatty, chat, system):
    write_rows("train.jsonl", rows())
    job = prepare(flags(*chat, "--eval_dataset_name", "train.jsonl", dataset="train.jsonl", model=chatty))
    for problems in (job.train_dataset, job.eval_dataset):
        assert problems[3]["prompt"] == [*system, {"role": "user", "content": "3="}]
        assert problems[3]["solution"] == "3"


def test_rewards_are_found_by_name_and_by_path(no_model):
    Path("my_rewards.py").write_text("def longer(completions, **kwargs):\n    return [0.0] * len(completions)\n")
    names = ["last_number_reward", "accuracy_reward", "trl_entropy.rewards.math_verify_reward", "my_rewards.longer"]
    found = prepare(flags("--reward_funcs", *names)).reward_funcs
    assert found[:3] == [last_number_reward, accuracy_reward, math_verify_reward]
    assert found[3](completions=["a", "b"]) == [0.0, 0.0]
    assert found[3].__name__ == "longer"


def test_recipe_and_command_line_give_the_same_config(no_model):
    sections = {
        "token_weights": {"confident_sign": {"threshold": 0.9}},
        "loss_terms": {"confident_surrogate": {"alpha": -0.5}},
        "controllers": {
            "mine": {
                "law": "pi",
                "knob": "token_weights.confident_sign.alpha",
                "target": 0.3,
                "low": -0.5,
                "high": 0.5,
            }
        },
    }
    plain = {"positive_advantage_coef": 0.5, "off_policy_updates": 2, "learning_rate": 1e-5, "epsilon_high": 0.28}
    Path("recipe.yaml").write_text(yaml.safe_dump({**plain, **sections}))
    given = [word for name, value in plain.items() for word in (f"--{name}", str(value))]
    given += [word for name, value in sections.items() for word in (f"--{name}", json.dumps(value))]
    from_recipe = prepare(flags("--config", "recipe.yaml")).training
    from_flags = prepare(flags(*given)).training
    assert from_recipe.to_dict() == from_flags.to_dict()
    assert from_recipe.control.fresh_controllers() == from_flags.control.fresh_controllers()
    assert {name: getattr(from_flags, name) for name in sections} == sections
    assert {name: getattr(from_flags, name) for name in plain} == plain
    assert from_recipe.to_dict() != prepare(flags()).training.to_dict()


def test_command_line_goes_before_the_recipe(no_model):
    Path("recipe.yaml").write_text("positive_advantage_coef: 0.5\nlearning_rate: 1.0e-5\n")
    training = prepare(flags("--positive_advantage_coef=0.25", "--config", "recipe.yaml")).training
    assert (training.positive_advantage_coef, training.learning_rate) == (0.25, 1e-5)


def test_recipe_sets_flags_over_those_of_its_base(no_model):
    Path("below").mkdir()
    Path("below/lowest.yaml").write_text("seed: 1\nepsilon: 0.1\ncontrollers: {a: {law: pi}, b: {law: pi}}\n")
    Path("below/base.yaml").write_text("base: lowest.yaml\nseed: 2\nbeta: 0.5\n")
    Path("recipe.yaml").write_text("base: below/base.yaml\nbeta: 0.0\ncontrollers: {}\n")
    assert read_recipe("recipe.yaml") == {"seed": 2, "epsilon": 0.1, "beta": 0.0, "controllers": {}}
    training = prepare(flags("--config", "recipe.yaml", "--epsilon", "0.3")).training
    assert (training.seed, training.epsilon, training.beta, training.controllers) == (2, 0.3, 0.0, {})


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("none.yaml", "recipe.yaml: base must be a YAML file, but 'none.yaml' does not exist"),
        ("3", "recipe.yaml: base must be a YAML file, but '3' does not exist"),
        ("./recipe.yaml", "recipe.yaml: base is './recipe.yaml', which is itself based on that file: a recipe cannot"),
        ("circle.yaml", "circle.yaml: base is 'recipe.yaml', which is itself based on that file: a recipe cannot"),
        ("list.yaml", "recipe.yaml: base list.yaml must contain a YAML mapping"),
        ("broken.yaml", "recipe.yaml: base broken.yaml is not YAML: while parsing"),
        ("wrong.yaml", "unknown flag 'learning_rat'. Did you mean 'learning_rate'?"),
    ],
)
def test_wrong_base_is_refused_with_one_line(no_model, base, line):
    for name, text in {
        "circle": "base: recipe.yaml",
        "list": "- a",
        "broken": "a: [1",
        "wrong": "learning_rat: 1",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    Path("recipe.yaml").write_text(f"base: {base}\n")
    assert line in refusal(flags("--config", "recipe.yaml"))


def test_environment_of_a_recipe_is_set(no_model, monkeypatch):
    monkeypatch.delenv("OF_THE_RECIPE", raising=False)
    Path("base.yaml").write_text("env: {OF_THE_RECIPE: 3}\n")
    Path("recipe.yaml").write_text("base: base.yaml\n")
    prepare(flags("--config", "recipe.yaml"))
    assert os.environ.pop("OF_THE_RECIPE") == "3"
    Path("base.yaml").write_text("env: 3\n")
    assert refusal(flags("--config", "recipe.yaml")) == "env must be a mapping of names to values, got 3"


def test_settings_beside_a_bundled_method_are_put_over_it(no_model):
    more = ["--entropy_control", "entropy_guided", "--controllers", '{"entropy_guided": {"step": 0.02}}']
    (controller,) = prepare(flags(*more)).training.control.fresh_controllers()
    assert (controller.law.step, controller.low, controller.high, controller.value) == (0.02, 0.0, 1.0, 0.0)


# A run


def test_embedded_policy_is_trained_saved_and_resumed(tmp_path, caplog):
    settings = ["--max_completion_length", "12", "--learning_rate", "1e-3", "--lr_scheduler_type", "constant"]
    settings += ["--logging_steps", "1", "--save_steps", "1", "--disable_tqdm", "true"]
    settings += ["--entropy_control", "entropic"]
    settings += ["--controllers", '{"entropic": {"target_ratio": 0.5, "start_steps": 1}}']
    cli.main(["grpo", *flags(*settings, "--max_steps", "2")])
    told = "controller entropic: pi turns loss_terms.confident_surrogate.alpha in [-1, 1], from 0, to hold entropy at "
    assert f"{told}0.5 of its start, the mean of optimizer step 1\n" in caplog.text
    out = tmp_path / "out"
    state = json.loads((out / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    first = [row for row in state["log_history"] if "reward" in row]
    assert [row["step"] for row in first] == [1, 2]
    assert all(0.0 <= row["reward"] <= 1.0 and row["entropy"] > 0 for row in first)
    assert first[0]["controllers/entropic/target"] == pytest.approx(0.5 * first[0]["entropy"], rel=1e-6)

    def weights(folder):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()

    untrained, after_two = weights(EMBEDDED_POLICY), weights(out)
    assert untrained.keys() == after_two.keys()
    assert not same(untrained, after_two)
    assert same(after_two, weights(out / "checkpoint-2"))
    assert AutoTokenizer.from_pretrained(out)("24=")["input_ids"] == [8, 10, 5]

    for resume in ("true", "out/checkpoint-2"):  # the newest checkpoint, then a named one
        cli.main(["grpo", *flags(*settings, "--max_steps", "3", "--resume_from_checkpoint", resume)])
        state = json.loads((out / "trainer_state.json").read_text())
        assert state["global_step"] == 3
        history = [row for row in state["log_history"] if "reward" in row]
        assert [row["step"] for row in history] == [1, 2, 3]
        assert history[:2] == first
        assert history[2]["controllers/entropic/target"] == first[0]["controllers/entropic/target"]
        assert not same(weights(out), after_two)
        if resume == "true":
            uninterrupted = weights(out)
            (out / "checkpoint-3").rename(tmp_path / "set_aside")
    assert same(weights(out), uninterrupted)


def stopping(completions, trainer_state, **kwargs) -> list[float]:
    if trainer_state.global_step == 2:
        raise KeyboardInterrupt  # as Ctrl-C does
    return [float(len(completion) % 2) for completion in completions]


@pytest.mark.parametrize(
    ("saves", "advice"),
    [
        (["--save_steps", "2"], "add --resume_from_checkpoint true to resume from out/checkpoint-2"),
        (["--save_strategy", "no"], "there is no checkpoint to resume from: a smaller --save_steps writes one sooner"),
    ],
)
def test_interrupted_run_says_where_it_is_and_how_to_resume(tmp_path, capsys, saves, advice):
    Path("stops.py").write_text("from test_grpo import stopping\n")
    settings = ["--max_completion_length", "4", "--max_steps", "5", "--disable_tqdm", "true"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["grpo", *flags(*settings, *saves, "--reward_funcs", "stops.stopping")])
    assert caught.value.code == 130
    *_, last = capsys.readouterr().err.splitlines()
    assert last == f"trl-entropy grpo: stopped at step 2 of 5; its log is in out; {advice}"
    assert (tmp_path / "out" / "metrics.jsonl").is_file()


def test_interrupted_run_names_the_last_whole_checkpoint():
    for step in (2, 4):
        (Path("out") / f"checkpoint-{step}").mkdir(parents=True)
    for name in ("entropy_control.json", "trainer_state.json"):
        (Path("out") / "checkpoint-2" / name).write_text("{}")
    state = SimpleNamespace(global_step=5, max_steps=9)
    trainer = SimpleNamespace(state=state, args=SimpleNamespace(output_dir="out"))
    with pytest.raises(KeyboardInterrupt, match="true to resume from out/checkpoint-2$"), says_where(trainer):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["save_model", "push_to_hub"])
def test_run_that_is_interrupted_after_its_last_step_says_where_it_is(monkeypatch, capsys, method):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trl_entropy.wrap.EntropyGRPOTrainer, method, stop)
    monkeypatch.setattr(trl_entropy.wrap.EntropyGRPOTrainer, "init_hf_repo", lambda *args, **kwargs: None)
    settings = ["--max_completion_length", "4", "--max_steps", "1", "--disable_tqdm", "true", "--save_strategy", "no"]
    with pytest.raises(SystemExit):
        cli.main(["grpo", *flags(*settings, *(["--push_to_hub", "true"] if method == "push_to_hub" else []))])
    assert capsys.readouterr().err.splitlines()[-1].startswith("trl-entropy grpo: stopped at step 1 of 1; its log is")


def test_end_of_a_run_says_where_it_is_saved(capsys):
    settings = ["--max_completion_length", "4", "--max_steps", "1", "--disable_tqdm", "true", "--save_strategy", "no"]
    cli.main(["grpo", *flags(*settings)])
    said = (
        "saved to out. Next: trl-entropy report out; trl-entropy eval --model_name_or_path out --dataset_name FILE\n"
    )
    assert capsys.readouterr().out.endswith(said)


def test_held_out_problems_are_sampled_every_so_many_steps(tmp_path):
    write_rows("test.jsonl", held_out_problems().select(range(6)).to_list())
    settings = ["--eval_dataset_name", "test.jsonl", "--pass_at_k_every", "2", "--pass_at_k_samples", "4"]
    settings += ["--max_completion_length", "12", "--max_steps", "4", "--save_strategy", "no"]
    cli.main(["grpo", *flags(*settings, "--disable_tqdm", "true")])
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if "eval_pass@4" in line]
    assert [line["step"] for line in found] == [2, 4]
    for line in found:
        assert 0 < line["eval_avg@4"] <= line["eval_pass@2"] <= line["eval_pass@4"] <= 1


def test_trainer_gets_model_data_and_rewards_of_the_job(model_dir):
    write_rows("train.jsonl", rows())
    more = [
        "--eval_dataset_name",
        "train.jsonl",
        "--reward_funcs",
        "last_number_reward",
        "--max_completion_length",
        "4",
    ]
    more += ["--max_steps", "1", "--logging_steps", "1", "--save_strategy", "no", "--disable_tqdm", "true"]
    arguments = flags(*more, dataset="train.jsonl")
    arguments[arguments.index("embedded")] = model_dir
    trainer = train(prepare(arguments))
    assert trainer.reward_func_names == ["last_number_reward"]
    assert len(trainer.train_dataset) == 8
    assert trainer.eval_dataset is None  # without eval_strategy there is nothing to evaluate
    assert len(logged(trainer, "rewards/last_number_reward/mean")) == 1
    shapes = {name: tensor.shape for name, tensor in parameters(trainer).items()}
    assert shapes["model.embed_tokens.weight"] == (22, 16)


@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|tied weights|save_embedding_layers)")
@pytest.mark.parametrize(
    "adapter",
    [
        ["--lora_target_modules", "embed_tokens", "q_proj"],
        ["--lora_target_modules", "q_proj", "v_proj", "--lora_modules_to_save", "embed_tokens", "lm_head"],
    ],
)
def test_adapter_on_the_embeddings_is_trained(model_dir, adapter):
    write_rows("train.jsonl", rows())
    more = ["--use_peft", "true", *adapter, "--reward_funcs", "last_number_reward", "--max_completion_length", "4"]
    more += ["--max_steps", "1", "--logging_steps", "1", "--save_strategy", "no", "--disable_tqdm", "true"]
    arguments = flags(*more, dataset="train.jsonl")
    arguments[arguments.index("embedded")] = model_dir
    cli.main(["grpo", *arguments])
    saved = load_file("out/adapter_model.safetensors")
    assert any("embed_tokens" in name for name in saved)
