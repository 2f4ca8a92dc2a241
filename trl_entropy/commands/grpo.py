"""Run GRPO from flags: read them, load the problems, build the trainer, train."""

import inspect
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import AutoProcessor, TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    TrlParser,
    get_peft_config,
    get_quantization_config,
    rewards,
)

from .._seam import LOSS_TYPES, last_checkpoint
from ..build import rollout_plan
from ..checks import check_is_number, imported_callable, lab, unknown
from ..config import EntropyGRPOConfig, with_help
from ..data.files import EMBEDDED, first_line, model_path
from ..families import installed_trl, is_tested
from ..refusals import check_rollout_fits
from ..rewards import REWARDS, TRL_REWARDS, MathVerifyReward, ReasoningGymReward, RelativeLengthReward
from ..wrap import EntropyGRPOTrainer
from ..written import check_not_in_dataset
from .launch import LAUNCHED_HERE, is_launched, launch_arguments
from .recipe import read_recipe
from .sources import SourceArguments, check, is_drawn, load_eval, load_train, selected, with_columns, with_messages


logger = logging.getLogger(__name__)

OVERLONG = "get_soft_overlong_punishment"
OVERLONG_OF_TRL = (1280, 256)  # tokens, as in its `trl grpo`
DAPO_OVERLONG = "dapo_overlong_reward"
# A reward's arguments besides the columns of the dataset: from TRL, and from the seam if it has `reads_rollout`
OF_TRL = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
OF_ROLLOUT = {"rollout_group", "env_mask", "policy_text"}


@with_help
@dataclass
class GRPOArguments(SourceArguments):
    """
    Flags for problems and rewards: [`~sources.SourceArguments`] and a few more.

    Args:
        reward_funcs (`list[str]`, *optional*):
            math_verify_reward (the default), last_number_reward, boxed_format_reward, relative_length_reward,
            reasoning_gym_reward (the default for its problems), dapo_overlong_reward (get_soft_overlong_punishment
            over the last fifth of max_completion_length), TRL's accuracy_reward, reasoning_accuracy_reward,
            think_format_reward and get_soft_overlong_punishment (between 1024 and 1280 tokens, as in trl grpo), or
            dotted paths of your own.
        reward_model_name_or_path (`str`, *optional*):
            A reward model, as a folder or a name on the hub. Its score is added to those of reward_funcs, which then
            has no default.
        answer_from (`list[str]`, *optional*, defaults to `["boxed"]`):
            Where math_verify_reward and reasoning_gym_reward look for the answer, in order: boxed, all_boxed,
            announced, hashes, last_maths, last_latex, last_number.
        grading_deadline (`float`, *optional*, defaults to `3.0`):
            Seconds after which math_verify_reward gives up on an answer; it tries twice.
        grading_batch_deadline (`float`, *optional*, defaults to `60.0`):
            Seconds after which math_verify_reward gives up on the ungraded rest of a batch.
        grading_workers (`int`, *optional*):
            Number of math_verify_reward's processes per rank; by default the rank's share of the cores, at most 8.
        pass_at_k_every (`int`, *optional*):
            Number of optimizer steps between two evaluations of the held-out problems by PassAtKCallback, with answers
            from answer_from; by default there are none.
        pass_at_k_samples (`int`, *optional*, defaults to `8`):
            Number of responses per held-out problem in these evaluations.
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to build everything except the weights, print what the run would do, and end.
    """

    reward_funcs: list[str] | None = None
    reward_model_name_or_path: str | None = None
    answer_from: list[str] = field(default_factory=lambda: ["boxed"])
    grading_deadline: float = 3.0
    grading_batch_deadline: float = 60.0
    grading_workers: int | None = None
    pass_at_k_every: int | None = None
    pass_at_k_samples: int = 8
    dry_run: bool = False


class Job(NamedTuple):
    """Everything a run needs, checked before a model is loaded."""

    script: GRPOArguments
    training: EntropyGRPOConfig
    model: ModelConfig
    train_dataset: Dataset
    eval_dataset: Dataset | None
    reward_funcs: list[Callable | str]
    pass_at_k: TrainerCallback | None = None
    launch: tuple[str, ...] = ()


class _Parser(TrlParser):
    def error(self, message: str):
        raise ValueError(message)


class Flags(NamedTuple):
    """All flags of a run, checked as far as possible without its problems."""

    script: GRPOArguments
    training: EntropyGRPOConfig
    model: ModelConfig
    mixture: DatasetMixtureConfig
    launch: tuple[str, ...]


def parse(arguments: list[str]) -> Flags:
    """
    Read flags and `--config`.

    Raises `ValueError` with one line that says what was given, what is allowed and the nearest name.
    """
    classes = (GRPOArguments, EntropyGRPOConfig, ModelConfig, DatasetMixtureConfig)
    script, training, model, mixture, launch = read_flags("grpo", classes, arguments)
    if model.model_name_or_path is None and script.dataset_name is None and not mixture.datasets:
        logger.warning("neither a model nor a dataset is given: training the embedded policy on its own problems")
    _fill_in_embedded(script, model, mixture)
    check(script)
    return Flags(script, training, model, mixture, launch)


def read_flags(verb: str, classes: tuple[type, ...], arguments: list[str]) -> list:
    """
    The flags and `--config` of a verb, as dataclasses, followed by the arguments for `accelerate launch`.

    Raises `ValueError` as [`parse`] does.
    """
    # TRL uses a name that transformers has deprecated: the user cannot change that
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing`", category=FutureWarning)
    parser = _Parser(
        classes,
        prog=f"trl-entropy {verb}",
        allow_abbrev=False,
        epilog="--config FILE.yaml sets defaults for all flags; its key base names a file to override.",
    )
    if not torch.accelerator.is_available():  # TRL's defaults are for a GPU
        parser.set_defaults_with_config(use_cpu=True, bf16=False)
    launched = is_launched()  # before the recipe's own env is set
    arguments = [part for given in arguments for part in _config_in_two(given)]
    unread: dict = {}
    if "--config" in arguments:
        place = arguments.index("--config")
        recipe = read_recipe((arguments + [""])[place + 1])
        del arguments[place : place + 2]
        environment = recipe.pop("env", {})  # as TRL's parser does
        if not isinstance(environment, dict):
            raise ValueError(f"env must be a mapping of names to values, got {environment!r}")
        os.environ.update({name: str(value) for name, value in environment.items()})
        unread = {name: recipe.pop(name) for name in ("help",) if name in recipe}  # the parser's own, and no setting
        unread |= {name[2:]: recipe[name[2:]] for name in parser.set_defaults_with_config(**recipe)[::2]}
    *read, rest = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    for flags in read:
        check_is_number(vars(flags))
    # Refuses what is neither a flag of this verb nor of accelerate launch
    launch = tuple(launch_arguments(unread, rest, vars(parser.parse_args([])), verb))
    if launch and launched and LAUNCHED_HERE not in os.environ:
        logger.info("this process is already launched, so these settings have no effect: %s", " ".join(launch))
    return [*read, launch]


def prepare(arguments: list[str]) -> Job:
    """Read flags and `--config`, load the problems and make the rewards. Raises `ValueError` as [`parse`] does."""
    script, training, model, mixture, launch = parse(arguments)
    check_start(training, model.model_name_or_path)
    reward_funcs = _rewards(script, training.max_completion_length)
    if script.dataset_name:
        check_not_in_dataset(training.output_dir, script.dataset_name)
    train_dataset = load_train(script, mixture)
    if not isinstance(train_dataset, Dataset) and training.max_steps <= 0:
        raise ValueError("the train dataset is a stream of unknown length: set max_steps")
    train_dataset = with_columns(script, train_dataset, _needed(reward_funcs))
    _check_columns(reward_funcs, next(iter(train_dataset)))
    train_dataset, removed = selected(script, train_dataset)
    for line in removed:
        logger.info(line)
    train_dataset = with_messages(script, train_dataset)
    check_rollout_fits(training, train_dataset)
    # check the columns and reward functions that rules name before a model loads
    rollout_plan(training, train_dataset, [reward_name(reward) for reward in reward_funcs])
    eval_dataset = pass_at_k = None
    wanted = training.eval_strategy != "no" or script.pass_at_k_every is not None
    if wanted or script.eval_dataset_name or script.dataset_name == EMBEDDED:
        graders = reward_funcs if script.pass_at_k_every is None else [*reward_funcs, _math_verify_reward(script)]
        wish = "eval_strategy is on" if script.pass_at_k_every is None else "pass_at_k_every is given"
        eval_dataset = with_columns(script, load_eval(script, mixture, wish), _needed(graders))
        if training.eval_strategy != "no":
            _check_columns(reward_funcs, next(iter(eval_dataset)))
        eval_dataset = with_messages(script, eval_dataset)
    for problems in (train_dataset, *([] if eval_dataset is None else [eval_dataset])):
        check_chat_template(training, _readers(script, model), next(iter(problems))["prompt"])
    if script.pass_at_k_every is not None:
        pass_at_k = _pass_at_k(script, eval_dataset)
    return Job(script, training, model, train_dataset, eval_dataset, reward_funcs, pass_at_k, launch)


def check_start(training: EntropyGRPOConfig, model: str) -> None:
    """Raise `ValueError` for flags of TRL, and folders, that would only fail after the model has loaded."""
    temperature, resume = training.temperature, _resumes_from(training)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a number > 0, got {temperature}: completions are sampled")
    if training.loss_type not in LOSS_TYPES and is_tested(installed_trl()):
        raise unknown("loss_type", training.loss_type, LOSS_TYPES)
    trackers = {"all", "none", *INTEGRATION_TO_CALLBACK}
    for name in (name for name in training.report_to if name not in trackers):
        raise unknown("report_to", name, trackers)
    output = Path(training.output_dir)
    there = next(path for path in (output, *output.parents) if os.path.lexists(path))
    if not training.output_dir or not there.is_dir():
        raise ValueError(f"output_dir must be a new or an existing folder, got {training.output_dir!r}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"output_dir={training.output_dir!r} cannot be written: you have no permission to write to {str(there)!r}"
        )
    if resume is True and last_checkpoint(training.output_dir) is None:
        raise ValueError(
            f"resume_from_checkpoint=true, but output_dir={training.output_dir!r} has no checkpoint: leave it out to "
            "start from the model"
        )
    if isinstance(resume, str) and not os.path.isfile(os.path.join(resume, "trainer_state.json")):
        raise ValueError(f"resume_from_checkpoint must be a checkpoint's folder or true, got {resume!r}")
    if os.path.isdir(model) and not resume and Path(os.path.realpath(model)).is_relative_to(os.path.realpath(output)):
        raise ValueError(f"output_dir={training.output_dir!r} holds the model to train: choose another folder")
    if not resume and (last := last_checkpoint(training.output_dir)) is not None:
        logger.warning(
            "output_dir=%r holds %s of another run: resume_from_checkpoint=true takes the checkpoint with the "
            "highest step, from either run",
            training.output_dir,
            os.path.basename(last),
        )
    if os.path.isdir(model) and not os.path.isfile(os.path.join(model, "config.json")):
        adapter = os.path.isfile(os.path.join(model, "adapter_config.json"))
        reason = "holds an adapter: merge it into its base" if adapter else "holds no config.json"
        raise ValueError(f"model_name_or_path={model!r} {reason}")


def _check_columns(reward_funcs: Iterable[Callable | str], row: Mapping[str, object]) -> None:
    """Raise `ValueError` for a reward that takes what neither TRL nor a row of the dataset gives, or not all of it."""
    columns = row.keys() - {"prompt", "completion"}  # TRL hands these on in the plural
    for reward in filter(callable, reward_funcs):
        of = reward.func if isinstance(reward, partial) else reward
        given = OF_TRL | columns | (OF_ROLLOUT if getattr(of, "reads_rollout", False) else set())
        parameters = inspect.signature(reward, follow_wrapped=False).parameters
        for name, parameter in parameters.items():
            is_one = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if is_one and parameter.default is parameter.empty and name not in given:
                raise ValueError(
                    f"{unknown('dataset column', name, columns)} (the reward {reward_name(reward)} takes it)"
                )
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if not takes_all and (left := sorted(given - parameters.keys())):
            raise ValueError(
                f"the reward {reward_name(reward)} does not take {', '.join(left)}, which TRL gives each reward: add "
                "**kwargs to its parameters"
            )


def _readers(script: GRPOArguments, model: ModelConfig) -> dict[str, tuple[str, str | None]]:
    """The models that read the prompts; of a dry run, which fetches none, those on this disk."""
    found = {
        "model_name_or_path": (model.model_name_or_path, model.model_revision),
        "reward_model_name_or_path": (script.reward_model_name_or_path, None),
    }
    return {
        flag: (name, revision)
        for flag, (name, revision) in found.items()
        if name is not None and (not script.dry_run or os.path.isdir(name))
    }


def check_chat_template(training: Any, models: Mapping[str, tuple[str, str | None]], prompt: object) -> None:
    """
    Raise `ValueError` for a prompt that is a conversation, and a model without a chat template to write it by.

    Args:
        training (`~trl.GRPOConfig`):
            Whether the code of a model is trusted.
        models (`Mapping[str, tuple[str, str | None]]`):
            Name and revision of each model that reads the prompts, by the flag that names it.
        prompt:
            The first of the prompts.
    """
    if isinstance(prompt, str):
        return
    for flag, (name, revision) in models.items():
        trusted = {"trust_remote_code": getattr(training, "trust_remote_code", False)}
        try:
            processor = AutoProcessor.from_pretrained(name, revision=revision, **trusted)
        except (OSError, ValueError) as error:
            raise ValueError(f"the tokenizer of {flag}={name!r} cannot be loaded: {first_line(error)}") from error
        if not processor.chat_template:
            raise ValueError(
                f"the prompts are conversations, and {flag}={name!r} has no chat template: give prompts as text, "
                "without chat, system_prompt and as_tool, or a model with a chat template"
            )


def _resumes_from(training: EntropyGRPOConfig) -> str | bool | None:
    resume = training.resume_from_checkpoint
    word = str(resume).lower()
    return True if word == "true" else None if word in ("false", "no", "none", "") else resume


def _config_in_two(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def build_trainer(job: Job, callbacks: list | None = None) -> EntropyGRPOTrainer:
    """The trainer of a job; loads the model."""
    training = job.training
    return EntropyGRPOTrainer(
        reward_funcs=job.reward_funcs,
        train_dataset=job.train_dataset,
        eval_dataset=job.eval_dataset if training.eval_strategy != "no" else None,
        callbacks=[*(callbacks or []), *([] if job.pass_at_k is None else [job.pass_at_k])],
        **of_model(training, job.model),
    )


def of_model(training: EntropyGRPOConfig, model: ModelConfig) -> dict:
    """The trainer's arguments that say which model to load, and how. Also sets `model_init_kwargs` of the config."""
    training.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs or {}),
    }
    return {
        "model": model.model_name_or_path,
        "args": training,
        "quantization_config": get_quantization_config(model),
        "peft_config": get_peft_config(model),
    }


def fit(job: Any, trainer: EntropyGRPOTrainer) -> None:
    """
    Train, from a checkpoint if the job names one, and save the model and the state to `output_dir`.

    Raises `KeyboardInterrupt` as [`says_where`] does.
    """
    with says_where(trainer):
        trainer.train(resume_from_checkpoint=_resumes_from(job.training))
        trainer.save_model(job.training.output_dir)
        trainer.save_state()


@contextmanager
def says_where(trainer: EntropyGRPOTrainer) -> Iterator[None]:
    """Raise `KeyboardInterrupt` with one line that says where the run is, and how to resume it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_stopped(trainer)) from error


def _stopped(trainer: EntropyGRPOTrainer) -> str:
    state, folder = trainer.state, trainer.args.output_dir
    last = last_checkpoint(folder)
    resume = (
        f"add --resume_from_checkpoint true to resume from {last}"
        if last
        else "there is no checkpoint to resume from: a smaller --save_steps writes one sooner"
    )
    if not state.global_step:
        return "stopped before the end of the first step"
    return f"stopped at step {state.global_step} of {state.max_steps}; its log is in {folder}; {resume}"


def finish(trainer: EntropyGRPOTrainer) -> None:
    """Print where the run is saved and what to do next, and end its trackers and process group."""
    folder = trainer.args.output_dir
    trainer.accelerator.print(
        f"saved to {folder}. Next: trl-entropy report {folder}; "
        f"trl-entropy eval --model_name_or_path {folder} --dataset_name FILE"
    )
    trainer.accelerator.end_training()


def train(job: Job, callbacks: list | None = None) -> EntropyGRPOTrainer:
    """Build the trainer of a job, fit it, push it to the hub if requested, and return it."""
    trainer = build_trainer(job, callbacks)
    fit(job, trainer)
    if job.training.push_to_hub:
        with says_where(trainer):
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
            f"model_name_or_path={model.model_name_or_path!r} and dataset_name={script.dataset_name!r}: set both, or "
            "neither to train the embedded policy"
        )
    model.model_name_or_path = model_path(model.model_name_or_path, "model_name_or_path")


def reward_name(reward: Callable | str) -> str:
    """The reward's name in TRL."""
    if isinstance(reward, str):
        return reward.split("/")[-1]
    return getattr(getattr(reward, "func", reward), "__name__", type(reward).__name__)


def _needed(reward_funcs: Iterable[Callable | str]) -> set[str]:
    return {name for reward in filter(callable, reward_funcs) for name in inspect.signature(reward).parameters}


def _pass_at_k(script: GRPOArguments, problems: Dataset) -> TrainerCallback:
    for name in ("pass_at_k_every", "pass_at_k_samples"):
        if getattr(script, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(script, name)}")
    return lab("evaluation.callback", "pass_at_k_every").PassAtKCallback(
        problems, script.pass_at_k_every, script.pass_at_k_samples, reward=_math_verify_reward(script)
    )


def _math_verify_reward(script: GRPOArguments) -> MathVerifyReward:
    return MathVerifyReward(
        script.answer_from, script.grading_deadline, script.grading_workers, script.grading_batch_deadline
    )


def _rewards(script: GRPOArguments, max_completion_length: int | None) -> list[Callable | str]:
    correct = _math_verify_reward(script)
    known = {
        **REWARDS,
        "math_verify_reward": correct,
        "reasoning_gym_reward": ReasoningGymReward(script.answer_from),
        "relative_length_reward": RelativeLengthReward(correct=correct),
        **{name: getattr(rewards, name) for name in TRL_REWARDS},
    }
    longest, interval = OVERLONG_OF_TRL
    known[OVERLONG] = rewards.get_soft_overlong_punishment(longest, interval)
    if max_completion_length is not None:
        known[DAPO_OVERLONG] = rewards.get_soft_overlong_punishment(max_completion_length, max_completion_length // 5)
    model, names = script.reward_model_name_or_path, script.reward_funcs
    if OVERLONG in (names or []) and (max_completion_length or longest) <= longest - interval:
        logger.warning(
            "%s does nothing: it begins above %d tokens, but max_completion_length is %s. %s begins at 4/5 of it",
            *(OVERLONG, longest - interval, max_completion_length, DAPO_OVERLONG),
        )
    if not names and model is None:
        names = ["reasoning_gym_reward" if is_drawn(script) else "math_verify_reward"]
    found = [known[name] if name in known else _imported_reward(name, known) for name in names or []]
    return found if model is None else [model, *found]


def _imported_reward(name: str, known: dict[str, Callable]) -> Callable:
    if "." not in name:
        raise unknown("reward", name, known)
    return imported_callable("reward", name)
