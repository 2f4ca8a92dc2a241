"""Run ETPO from flags: read them, make the environment and its problems, build the trainer, train."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from datasets import Dataset
from trl import ModelConfig

from ..checks import bind, imported_callable, unknown
from ..config import with_help
from ..control.presets import mapping_of
from ..data.files import EMBEDDED, load, model_path
from ..etpo import ENVIRONMENTS, Episodes, EtpoConfig, EtpoTrainer, as_messages, as_tool
from ..refusals import check_rollout_fits
from ..written import check_not_in_dataset
from .grpo import check_chat_template, check_start, fit, of_model, read_flags


@with_help
@dataclass
class EtpoArguments:
    """
    The environment of a run.

    Args:
        environment (`str`, *optional*, defaults to `"arithmetic"`):
            arithmetic (ours, for the embedded policy), data_science (from the paper), or the dotted path of your own.
        environment_settings (`dict` or `str`, *optional*):
            Parameters of the environment, such as attempts, as JSON on the command line.
        dataset_name (`str`, *optional*):
            Rows for reset(): a dataset on the hub, a folder or a file; by default the environment's own rows.
        as_tool (`bool`, *optional*, defaults to `False`):
            Whether the policy acts by tool calls, for a model whose chat template supports them; by default it writes
            text.
    """

    environment: str = "arithmetic"
    environment_settings: dict | str | None = None
    dataset_name: str | None = None
    as_tool: bool = False


class Job(NamedTuple):
    """Everything a run needs, checked before a model is loaded."""

    script: EtpoArguments
    training: EtpoConfig
    model: ModelConfig
    dataset: Dataset
    environment: Callable
    launch: tuple[str, ...]


def prepare(arguments: list[str]) -> Job:
    """
    Read flags and `--config`, and make the environment once.

    Raises `ValueError` with one line that says what was given, what is allowed and what to do.
    """
    script, training, model, launch = read_flags("etpo", (EtpoArguments, EtpoConfig, ModelConfig), arguments)
    model.model_name_or_path = model_path(model.model_name_or_path or EMBEDDED, "model_name_or_path")
    check_start(training, model.model_name_or_path)
    made = _environment(script.environment)
    settings = mapping_of("environment_settings", script.environment_settings)
    first = bind("environment_settings", made, settings)
    if script.dataset_name is not None:
        check_not_in_dataset(training.output_dir, script.dataset_name)
        dataset = load(script.dataset_name)
    elif hasattr(first, "dataset"):
        dataset = first.dataset()
    else:
        raise ValueError(f"environment {script.environment!r} has no dataset(): set dataset_name")
    if "prompt" not in dataset.column_names:
        raise unknown("dataset column", "prompt", dataset.column_names)
    if script.as_tool:
        reader = model.model_name_or_path, model.model_revision
        check_chat_template(training, {"model_name_or_path": reader}, as_messages(dataset[0])["prompt"])
    check_rollout_fits(training, dataset)
    return Job(script, training, model, dataset, partial(made, **settings), launch)


def _environment(name: str) -> Callable:
    if "." in name:
        return imported_callable("environment", name)
    if name not in ENVIRONMENTS:
        raise unknown("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name]


def train(job: Job) -> EtpoTrainer:
    """Build the trainer of a job, train, save, and return it."""
    if job.script.as_tool:
        dataset = job.dataset.map(as_messages)
        steps = {"environment_factory": as_tool(job.environment)}
    else:
        dataset, steps = job.dataset, {"rollout_func": Episodes(job.environment)}
    trainer = EtpoTrainer(train_dataset=dataset, **steps, **of_model(job.training, job.model))
    fit(job, trainer)
    return trainer
