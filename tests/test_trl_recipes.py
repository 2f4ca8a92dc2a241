"""What `trl grpo` takes, in a recipe and on the command line, means the same here."""

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from toy import logged
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification
from trl import GRPOConfig, ModelConfig
from trl.scripts.grpo import make_parser

from trl_entropy.commands import cli, launch
from trl_entropy.commands.grpo import parse, prepare, train


ON_CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
MODEL = {"model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}
DATA = {"dataset_name": "trl-lib/tldr"}
# The forms of TRL's pages on its command line, on GRPO, on PEFT and on vLLM
RECIPES = {
    "basic": {**MODEL, **DATA, "learning_rate": 1.0e-5, "reward_funcs": ["accuracy_reward"]},
    "split": {**MODEL, **DATA, "dataset_config": "main", "dataset_train_split": "train[:1%]"},
    "mixture": {
        **MODEL,
        "datasets": [{"path": "stanfordnlp/imdb"}, {"path": "roneneldan/TinyStories", "split": "train"}],
    },
    "environment": {**MODEL, **DATA, "env": {"TRL_ENTROPY_TEST": 1}, "log_completions": True},
    "peft": {**MODEL, **DATA, "use_peft": True, "lora_r": 16, "lora_target_modules": ["q_proj", "v_proj"]},
    "quantized": {**MODEL, **DATA, "load_in_4bit": True, "dtype": "bfloat16", "attn_implementation": "sdpa"},
    "nested": {**MODEL, **DATA, "lr_scheduler_kwargs": {"min_lr": 1e-6}, "generation_kwargs": {"top_k": 50}},
    "loss": {**MODEL, **DATA, "loss_type": "dr_grpo", "epsilon_high": 0.28, "scale_rewards": False, "beta": 0.04},
}
LAUNCH = {
    "processes": {"num_processes": 4},
    "config": {"accelerate_config": "zero3", "num_processes": 8},
    "machines": {"num_machines": 2, "machine_rank": 1, "main_process_ip": "10.0.0.1", "mixed_precision": "bf16"},
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (launch.LAUNCHED_HERE, "LOCAL_RANK", "ACCELERATE_USE_CPU", "TRL_ENTROPY_TEST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def recipe(content: dict, name: str = "recipe.yaml") -> list[str]:
    Path(name).write_text(yaml.safe_dump({**ON_CPU, **content}))
    return ["--config", name]


def launched(monkeypatch, arguments: list[str]) -> Namespace:
    """What accelerate is given for these arguments of `trl-entropy grpo`."""
    commands = []

    def run(command: list[str], environment: dict[str, str]) -> int:
        commands.append(command)
        assert environment == {launch.LAUNCHED_HERE: "1"}
        return 3

    monkeypatch.setattr(launch, "status_of", run)
    with pytest.raises(SystemExit) as ended:
        cli.main(["grpo", *arguments])
    assert ended.value.code == 3
    ((_, _, module, *rest),) = commands
    assert module == "trl_entropy.commands.launch"
    return launch_command_parser().parse_args(rest)


def of_trl(config, cls: type) -> dict:
    """The fields that TRL's own config has."""
    names = set(cls.__dataclass_fields__) - {"entropy_target"}  # unset it is TRL's 0.2 where its adaptive bonus is on
    return {name: value for name, value in vars(config).items() if name in names}


@pytest.mark.parametrize("on_line", [[], ["--learning_rate", "3e-6"], ["--max-completion-length", "99"]])
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_gives_what_it_gives_trl(name, on_line):
    arguments = [*recipe(RECIPES[name]), *on_line]
    script, training, model, mixture = make_parser().parse_args_and_config(arguments)
    ours = parse(arguments)
    assert of_trl(ours.training, GRPOConfig) == of_trl(training, GRPOConfig)
    assert of_trl(ours.model, ModelConfig) == of_trl(model, ModelConfig)
    assert ours.mixture == mixture
    assert {key: getattr(ours.script, key) for key in vars(script)} == vars(script)
    assert ours.launch == ()


@pytest.mark.parametrize("written", ["off", "null", "false", "none", "no"])
def test_control_that_is_off_is_none(written):
    Path("off.yaml").write_text(f"use_cpu: true\nbf16: false\nentropy_control: {written}\n")
    assert parse(["--config", "off.yaml"]).training.entropy_control in ("none", None)  # null is what is not set
    if written != "no":
        assert parse(["--use_cpu", "--bf16", "false", "--entropy_control", written]).training.entropy_control == "none"


@pytest.mark.parametrize("place", ["recipe", "line"])
@pytest.mark.parametrize("name", LAUNCH)
def test_launch_keys_go_to_accelerate_as_those_of_trl_do(monkeypatch, name, place):
    on_line = [part for key, value in LAUNCH[name].items() for part in (f"--{key}", str(value))]
    in_recipe, on_line = (LAUNCH[name], []) if place == "recipe" else ({}, on_line)
    arguments = [*recipe({"max_steps": 1, **in_recipe}), *on_line]
    given = launched(monkeypatch, arguments)
    for key, value in LAUNCH[name].items():
        if key == "accelerate_config":
            assert Path(given.config_file).name == "zero3.yaml"
        else:
            assert getattr(given, key) == value
    assert given.module
    assert [given.training_script, *given.training_script_args] == ["trl_entropy", "grpo", *arguments]


@pytest.mark.parametrize(("value", "given"), [(True, True), (False, False)])
def test_switch_of_accelerate_in_a_recipe(value, given):
    arguments = parse(recipe({"multi_gpu": value, "num_processes": 2})).launch
    assert ("--multi_gpu" in arguments) is given
    assert arguments[-2:] == ("--num_processes", "2")


@pytest.mark.parametrize(
    ("content", "on_line", "expected"),
    [
        ({"num-processes": 2}, [], ["--num_processes", "2"]),
        ({"num_processes": 2}, ["--num-processes=4"], ["--num_processes", "4"]),
        ({"num_processes": None, "gpu_ids": [0, 1]}, [], ["--gpu_ids", "0,1"]),
        ({"cpu": "false", "num_processes": 1}, [], ["--num_processes", "1"]),
    ],
)
def test_forms_of_launch_keys(content, on_line, expected):
    assert list(parse([*recipe(content), *on_line]).launch) == expected


def test_line_overrides_the_config_of_the_recipe():
    launch = parse([*recipe({"accelerate_config": "zero2"}), "--accelerate-config=zero3"]).launch
    assert [Path(part).name for part in launch] == ["--config_file", "zero3.yaml"]


def test_environment_of_a_recipe_does_not_stop_the_launch(monkeypatch):
    arguments = recipe({"num_processes": 2, "max_steps": 1, "env": {"ACCELERATE_USE_CPU": "true"}})
    assert launched(monkeypatch, arguments).num_processes == 2
    assert launch.LAUNCHED_HERE not in os.environ


def test_one_process_without_an_accelerator_is_told(monkeypatch, caplog):
    for content, said in (({"num_processes": 2}, True), ({"num_processes": 2, "multi_gpu": True}, False)):
        caplog.clear()
        launched(monkeypatch, recipe({"max_steps": 1, **content}))
        assert ("without an accelerator, accelerate starts one process" in caplog.text) is said


def test_launched_process_trains_and_says_that_launch_keys_are_not_read(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with caplog.at_level("INFO", "trl_entropy"):
        job = prepare([*recipe({"num_processes": 2, "max_steps": 1}), "--output_dir", "out"])
    assert job.launch == ("--num_processes", "2")
    assert launch.is_launched()
    assert "this process is already launched, so these settings have no effect: --num_processes 2" in caplog.text


@pytest.mark.parametrize(
    ("content", "on_line", "line"),
    [
        (
            {"accelerate_config": "zero9"},
            [],
            "accelerate_config must be a YAML file or one of fsdp1, fsdp2, multi_gpu",
        ),
        ({}, ["--accelerate_config"], "accelerate_config must be a YAML file or one of fsdp1, fsdp2, multi_gpu"),
        (
            {"num_proceses": 2},
            [],
            "unknown flag 'num_proceses'. Did you mean 'num_processes'? `trl-entropy grpo --help`",
        ),
        ({}, ["--num_proceses", "2"], "unknown flag 'num_proceses'. Did you mean 'num_processes'?"),
        ({"help": True}, [], "unknown flag 'help'. `trl-entropy grpo --help` lists all."),
        ({"bse": "a.yaml"}, [], "unknown flag 'bse'. Did you mean 'base'?"),
        ({}, ["--confg", "a.yaml"], "unknown flag 'confg'. Did you mean 'config'?"),
        ({}, ["stray"], "unknown flag 'stray'."),
        ({"num_processes": 2}, ["stray"], "unknown flag 'stray'."),
        ({}, ["--num_processes", "2", "stray"], "'stray' is neither a flag nor the value of one"),
        ({}, ["--num_processes", "2", "--multi_gpu", "true"], "'true' is neither a flag nor the value of one"),
        ({}, ["--num_processes", "two"], "argument --num_processes/--num-processes: invalid int value: 'two' (of acc"),
        ({"num_processes": [1, 2]}, [], "argument --num_processes/--num-processes: invalid int value: '1,2' (of acc"),
        ({"module": True}, [], "unknown flag 'module'."),
        ({"accelerate_config": "recipes/ddp"}, [], "accelerate_config must be a YAML file or one of fsdp1, fsdp2, m"),
        (
            {"accelerate_config": "zero2", "config_file": "a"},
            [],
            "accelerate_config and config_file both name an accelerate config",
        ),
        ({"nothing_like_it": 2}, [], "unknown flag 'nothing_like_it'. `trl-entropy grpo --help` lists all."),
    ],
)
def test_what_neither_knows_is_refused(content, on_line, line):
    with pytest.raises(ValueError, match="^" + re.escape(line)):
        parse([*recipe(content), *on_line])


def test_comparison_trains_in_one_process(capsys):
    with pytest.raises(SystemExit):
        cli.main(["compare", recipe({"num_processes": 2})[1], "--output_dir", "out"])
    assert "each recipe is trained in one process: leave out --num_processes 2" in capsys.readouterr().err


@pytest.mark.slow
def test_recipe_with_two_processes_trains_on_two_ranks(capfd):
    cli.main(["grpo", *recipe({"num_processes": 2, "multi_gpu": True, "max_steps": 1, "output_dir": "out"})])
    _, first, *_ = [json.loads(text) for text in Path("out/metrics.jsonl").read_text().splitlines()]
    assert first["step"] == 1
    assert first["num_tokens"] > 2 * 8 * 5  # 16 completions, of two ranks
    assert "accelerate launch --multi_gpu --num_processes 2 --module trl_entropy grpo" in capfd.readouterr().err


def test_reward_model_is_added_to_the_reward_functions(model_dir):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    config = Qwen2Config.from_pretrained(model_dir, num_labels=1)
    torch.manual_seed(0)
    Qwen2ForSequenceClassification(config).save_pretrained("scores")
    tokenizer.save_pretrained("scores")
    given = {"reward_model_name_or_path": "scores", "max_steps": 1, "output_dir": "out"}
    assert prepare(recipe(given)).reward_funcs == ["scores"]  # as in TRL, no default beside it
    trainer = train(prepare(recipe({**given, "reward_funcs": ["last_number_reward"]})))
    assert [len(logged(trainer, f"rewards/{name}/mean")) for name in ("scores", "last_number_reward")] == [1, 1]


def test_punishment_of_long_completions_has_the_numbers_of_trl(caplog):
    def punished(name: str, length: int, longest: int) -> float:
        given = {"reward_funcs": [name], "max_completion_length": longest, "output_dir": "out"}
        (reward,) = prepare(recipe(given)).reward_funcs
        return reward(completion_ids=[[0] * length])[0]

    assert punished("get_soft_overlong_punishment", 1152, 2048) == -0.5  # halfway from 1024 to 1280
    assert punished("dapo_overlong_reward", 1152, 2048) == 0
    assert punished("dapo_overlong_reward", 90, 100) == -0.5
    said = "get_soft_overlong_punishment does nothing: it begins above 1024 tokens, but max_completion_length is 900"
    assert said not in caplog.text
    assert punished("get_soft_overlong_punishment", 900, 900) == 0
    assert said in caplog.text
