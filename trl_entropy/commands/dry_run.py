"""`--dry_run`: print what a run would do."""

import os
from math import ceil

from datasets import Dataset
from transformers import AutoConfig, PreTrainedConfig

from .._seam.vocabulary import check_plain_head
from ..config import EntropyGRPOConfig
from ..data.files import first_line
from ..rules.compose import needs
from ..rules.looks import looks_among
from .grpo import Job, reward_name


def dry_run(job: Job) -> None:
    """
    Print what a prepared run would do, without loading its weights.

    Raises `ValueError` if the model's config cannot be read, or a rule does not work with the model.
    """
    sections = job.training.control.sections
    if looks_among(needs(*sections.values())):
        named = ", ".join(name for rules in sections.values() for name in rules)
        check_plain_head(config_of(job.model.model_name_or_path, job.model.model_revision), named)
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(f"{name:11} {value}" for name, value in lines(job)))


def config_of(model: str, revision: str | None) -> PreTrainedConfig:
    """The config of a model. Raises `ValueError` if it cannot be read."""
    try:
        return AutoConfig.from_pretrained(model, revision=revision)
    except OSError as error:
        raise ValueError(f"the config of model {model!r} cannot be read: {first_line(error)}") from error


def lines(job: Job) -> list[tuple[str, str]]:
    """The lines about a job: name and text."""
    known, control = isinstance(job.train_dataset, Dataset), job.training.control
    first = str(next(iter(job.train_dataset))["prompt"])
    said = [
        ("model", job.model.model_name_or_path),
        ("problems", f"{len(job.train_dataset) if known else 'a stream'}; the first: {first[:70]!r}"),
        ("rewards", ", ".join(map(reward_name, job.reward_funcs))),
        *(
            [("launch", f"accelerate launch {' '.join(job.launch)}; the numbers here are for one rank")]
            if job.launch
            else []
        ),
    ]
    for section, rules in {**control.sections, "rollout_rules": control.rollout_rules}.items():
        if active := [str(rule) for rule in rules.values() if not getattr(rule, "neutral", False)]:
            said.append((section, "; ".join(active)))
    said += [("controller", str(controller)) for controller in control.controllers]
    return [*said, *geometry(job.training, len(job.train_dataset) if known else None, job.training.world_size)]


def geometry(training: EntropyGRPOConfig, problems: int | None, ranks: int) -> list[tuple[str, str]]:
    """The number of completions sampled and trained on at once, and of optimizer steps."""
    rows = training.per_device_train_batch_size * ranks
    sampled, trained = rows * training.steps_per_generation, rows * training.gradient_accumulation_steps
    updates = training.num_iterations * sampled / trained
    said = [
        ("rollout", f"{sampled // training.num_generations} prompts, {training.num_generations} completions of each"),
        ("step", f"{trained} completions on {_plural(ranks, 'rank')}; {_plural(updates, 'step')} per rollout"),
    ]
    steps = training.max_steps
    if steps <= 0 and problems is not None:  # TRL skips problems that do not fill a rollout
        rollouts = problems // (sampled // training.num_generations)
        micro_batches = rollouts * training.steps_per_generation * training.num_iterations
        steps = ceil(training.num_train_epochs * ceil(micro_batches / training.gradient_accumulation_steps))
    return [*said, ("steps", str(steps))] if steps > 0 else said


def _plural(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' * (number != 1)}"
