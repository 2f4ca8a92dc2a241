"""Floor 5: one GRPO run from flags: read them, load the problems, build the trainer, train."""

import importlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from datasets import Dataset
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    TrlParser,
    get_dataset,
    get_peft_config,
    get_quantization_config,
    rewards,
)

from . import data
from .compose import unknown
from .config import EntropyGRPOConfig, check_rollout_fits
from .data.files import EMBEDDED, LOCAL_FILES, load, model_path
from .rewards import REWARDS, TRL_REWARDS, MathVerifyReward, RelativeLengthReward
from .trainer import EntropyGRPOTrainer


logger = logging.getLogger(__name__)

OVERLONG = "get_soft_overlong_punishment"


@dataclass
class GRPOArguments(ScriptArguments):
    """
    Where problems and rewards come from; TRL's [`~trl.ScriptArguments`] with a few more.

    Args:
        dataset_name (`str`, *optional*):
            A dataset of the hub or a saved one, a .jsonl, .json, .parquet or .csv file, or "embedded" (the default
            with the embedded policy).
        eval_dataset_name (`str`, *optional*):
            The same for the held-out problems; by default the split dataset_test_split of dataset_name.
        prompt_column (`str`, *optional*, defaults to `"prompt"`):
            Column that holds the problem.
        solution_column (`str`, *optional*, defaults to `"solution"`):
            Column that holds the solution.
        chat (`bool`, *optional*, defaults to `False`):
            Whether to hand the problem to the chat template as a user message.
        system_prompt (`str`, *optional*):
            System message before the problem; implies chat.
        reward_funcs (`list[str]`, *optional*):
            math_verify_reward (the default), last_number_reward, boxed_format_reward, relative_length_reward, TRL's
            accuracy_reward, reasoning_accuracy_reward, think_format_reward and get_soft_overlong_punishment (with
            DAPO's interval, the last fifth of max_completion_length), or dotted paths of your own.
        answer_from (`list[str]`, *optional*, defaults to `["boxed"]`):
            Where math_verify_reward looks for the answer, in order: boxed, all_boxed, announced, hashes, last_maths,
            last_latex, last_number.
        grading_deadline (`float`, *optional*, defaults to `3.0`):
            Seconds after which math_verify_reward gives up on one answer.
        grading_workers (`int`, *optional*):
            Processes of math_verify_reward on each rank; by default the rank's share of the cores, at most 8.
    """

    eval_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "The same as dataset_name for the held-out problems; by default the split dataset_test_split of "
            "dataset_name."
        },
    )
    prompt_column: str = field(default="prompt", metadata={"help": "Column that holds the problem."})
    solution_column: str = field(default="solution", metadata={"help": "Column that holds the solution."})
    chat: bool = field(
        default=False, metadata={"help": "Whether to hand the problem to the chat template as a user message."}
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System message before the problem; implies chat."}
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: ["math_verify_reward"],
        metadata={
            "help": "math_verify_reward (the default), last_number_reward, boxed_format_reward, "
            "relative_length_reward, TRL's accuracy_reward, reasoning_accuracy_reward, think_format_reward and "
            "get_soft_overlong_punishment (with DAPO's interval, the last fifth of max_completion_length), or dotted "
            "paths of your own."
        },
    )
    answer_from: list[str] = field(
        default_factory=lambda: ["boxed"],
        metadata={
            "help": "Where math_verify_reward looks for the answer, in order: boxed, all_boxed, announced, hashes, "
            "last_maths, last_latex, last_number."
        },
    )
    grading_deadline: float = field(
        default=3.0, metadata={"help": "Seconds after which math_verify_reward gives up on one answer."}
    )
    grading_workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes of math_verify_reward on each rank; by default the rank's share of the cores, at most "
            "8."
        },
    )


class Job(NamedTuple):
    """All that a run needs, checked, before a model is loaded."""

    script: GRPOArguments
    training: EntropyGRPOConfig
    model: ModelConfig
    train_dataset: Dataset
    eval_dataset: Dataset | None
    reward_funcs: list[Callable]


class _Parser(TrlParser):
    def error(self, message: str):
        raise ValueError(message)


def prepare(arguments: list[str]) -> Job:
    """
    Read flags and `--config` and load the problems.

    Raises `ValueError` with one line that says what was given, what is allowed and the nearest name.
    """
    # TRL's own use of a name that transformers has deprecated: nothing the user could change
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing`", category=FutureWarning)
    parser = _Parser(
        (GRPOArguments, EntropyGRPOConfig, ModelConfig, DatasetMixtureConfig),
        prog="trl-entropy grpo",
        allow_abbrev=False,
        epilog="--config FILE.yaml sets the defaults of all of these.",
    )
    if not torch.accelerator.is_available():  # TRL's defaults are for a GPU
        parser.set_defaults_with_config(use_cpu=True, bf16=False)
    arguments = [part for given in arguments for part in _config_in_two(given)]
    if "--config" in arguments:
        path = (arguments + [""])[arguments.index("--config") + 1]
        if not os.path.isfile(path):
            raise ValueError(f"--config must be a YAML file, and there is none at {path!r}")
    try:
        script, training, model, mixture, rest = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if rest:
        raise unknown("flag", rest[0].lstrip("-"), vars(parser.parse_args([])))
    given_model = model.model_name_or_path
    _fill_in_embedded(script, model, mixture)
    reward_funcs = _rewards(script, training.max_completion_length)
    train_dataset = _problems(script, _load_train(script, mixture), reward_funcs)
    check_rollout_fits(training, train_dataset)
    eval_dataset = None
    if training.eval_strategy != "no" or script.eval_dataset_name or script.dataset_name == EMBEDDED:
        eval_dataset = _problems(script, _load_eval(script, mixture), reward_funcs)
    if given_model is None:
        logger.warning("no model and no dataset given: training the embedded policy on its own problems")
    return Job(script, training, model, train_dataset, eval_dataset, reward_funcs)


def _config_in_two(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def build_trainer(job: Job, callbacks: list | None = None) -> EntropyGRPOTrainer:
    """The trainer of a job; loads the model."""
    training, model = job.training, job.model
    training.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs or {}),
    }
    return EntropyGRPOTrainer(
        model=model.model_name_or_path,
        reward_funcs=job.reward_funcs,
        args=training,
        train_dataset=job.train_dataset,
        eval_dataset=job.eval_dataset if training.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
        callbacks=callbacks,
    )


def fit(job: Job, trainer: EntropyGRPOTrainer) -> None:
    """Train, from a checkpoint if the job names one, and save model and state to `output_dir`."""
    resume = job.training.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model(job.training.output_dir)
    trainer.save_state()


def train(job: Job, callbacks: list | None = None) -> EntropyGRPOTrainer:
    """Build the trainer of a job, fit it, push it to the hub if asked, and return it."""
    trainer = build_trainer(job, callbacks)
    fit(job, trainer)
    if job.training.push_to_hub:
        trainer.push_to_hub(dataset_name=job.script.dataset_name)
    return trainer


def _fill_in_embedded(script: GRPOArguments, model: ModelConfig, mixture: DatasetMixtureConfig) -> None:
    no_data = script.dataset_name is None and not mixture.datasets
    if model.model_name_or_path is None and no_data:
        model.model_name_or_path = script.dataset_name = EMBEDDED
    elif no_data and model.model_name_or_path == EMBEDDED:
        script.dataset_name = EMBEDDED
    if model.model_name_or_path is None or (script.dataset_name is None and not mixture.datasets):
        raise ValueError(
            f"model_name_or_path={model.model_name_or_path!r} and dataset_name={script.dataset_name!r}: give both, or "
            "neither to train the embedded policy"
        )
    model.model_name_or_path = model_path(model.model_name_or_path, "model_name_or_path")


def _load_train(script: GRPOArguments, mixture: DatasetMixtureConfig) -> Dataset:
    if mixture.datasets:
        return get_dataset(mixture)[script.dataset_train_split]
    if script.dataset_name == EMBEDDED:
        return data.train_problems()
    return _load(script, script.dataset_name, script.dataset_train_split)


def _load_eval(script: GRPOArguments, mixture: DatasetMixtureConfig) -> Dataset:
    name = script.eval_dataset_name or script.dataset_name
    if name == EMBEDDED:
        return data.held_out_problems()
    if script.eval_dataset_name is None and mixture.datasets:
        return get_dataset(mixture)[script.dataset_test_split]
    if script.eval_dataset_name is None and Path(name).suffix in LOCAL_FILES:
        raise ValueError(f"eval_strategy is on, but {name} is one file: give the held-out one as eval_dataset_name")
    return _load(script, name, script.dataset_test_split)


def _load(script: GRPOArguments, name: str, split: str) -> Dataset:
    return load(name, script.dataset_config, split, script.dataset_streaming)


def _problems(script: GRPOArguments, dataset: Dataset, reward_funcs: Iterable[Callable]) -> Dataset:
    needed = {"prompt": script.prompt_column}
    if any("solution" in inspect.signature(reward).parameters for reward in reward_funcs):
        needed["solution"] = script.solution_column
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError("the dataset is empty")
    for column, given in needed.items():
        if given not in first:
            raise ValueError(f"{unknown('dataset column', given, first)}; set {column}_column")
    for column, given in needed.items():
        if given != column:
            if column in first:
                dataset = dataset.remove_columns(column)
            dataset = dataset.rename_column(given, column)
    if not (script.chat or script.system_prompt):
        return dataset
    system = [{"role": "system", "content": script.system_prompt}] if script.system_prompt else []
    if not isinstance(first[script.prompt_column], str):
        raise ValueError("chat and system_prompt need prompts that are text, and these are conversations already")
    return dataset.map(lambda row: {"prompt": [*system, {"role": "user", "content": row["prompt"]}]})


def _rewards(script: GRPOArguments, max_completion_length: int | None) -> list[Callable]:
    correct = MathVerifyReward(script.answer_from, script.grading_deadline, script.grading_workers)
    known = {
        **REWARDS,
        "math_verify_reward": correct,
        "relative_length_reward": RelativeLengthReward(correct=correct),
        **{name: getattr(rewards, name) for name in TRL_REWARDS},
    }
    if max_completion_length is not None:
        known[OVERLONG] = rewards.get_soft_overlong_punishment(max_completion_length, max_completion_length // 5)
    return [known[name] if name in known else _imported_reward(name, known) for name in script.reward_funcs]


def _imported_reward(name: str, known: dict[str, Callable]) -> Callable:
    if "." not in name:
        raise unknown("reward", name, known)
    module, _, attribute = name.rpartition(".")
    sys.path.insert(0, os.getcwd())  # a reward of the user's own stands where they work
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward {name!r} cannot be imported: {error}") from error
