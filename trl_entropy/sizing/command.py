"""The verb plan, and what `--dry_run` prints."""

import argparse
import math
import os
import sys
from collections.abc import Mapping

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig
from trl import ModelConfig, get_peft_config

from ..compose import needs, unknown
from ..config import EntropyGRPOConfig
from ..grpo import Job, parse
from ..vocabulary import check_plain_head
from .estimate import SHARDINGS, Line, Setup, memory, peak, step_time
from .hardware import GPU, GPUS
from .shapes import Shape, config_of, shape_of, skeleton


BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2, None: 4}
PROMPT_TOKENS = 512  # ours, where no problem is read


def plan(arguments: list[str]) -> None:
    """
    Print memory and time of a run, with how they come about.

    Raises `ValueError` with one line for a wrong flag, or a model whose config cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="trl-entropy plan",
        allow_abbrev=False,
        description="Estimate memory and time of a run: its flags as for trl-entropy grpo, and these.",
    )
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that train, one process each; by default 1")
    parser.add_argument("--gpu", default="h100", help=f"one of {', '.join(GPUS)}; by default h100")
    parser.add_argument("--sharding", default="none", help=f"one of {', '.join(SHARDINGS)}; by default none")
    parser.add_argument("--problems", type=int, help="problems of the dataset, for the hours of the whole run")
    parser.add_argument(
        "--prompt_tokens", type=int, default=PROMPT_TOKENS, help=f"tokens of a prompt; by default {PROMPT_TOKENS}"
    )
    given, rest = parser.parse_known_args(arguments)
    for name, allowed in (("gpu", GPUS), ("sharding", SHARDINGS)):
        if getattr(given, name) not in allowed:
            raise unknown(name, getattr(given, name), allowed)
    for name in ("gpus", "prompt_tokens", "problems"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(given, name)}")
    flags = parse(rest)
    config = config_of(flags.model.model_name_or_path, flags.model.model_revision)
    shape = shape_of(config)
    trained = trained_parameters(shape, config, flags.model)
    setup = setup_of(flags.training, flags.model, trained, given.gpus, given.sharding, given.prompt_tokens)
    _print(flags.training, shape, setup, GPUS[given.gpu], given.gpu, given.problems)


def dry_run(job: Job) -> None:
    """
    Print what a prepared run would do and need on the machines it was launched on, and load no weights.

    Raises `ValueError` for a model whose config cannot be read, or that a rule cannot work with.
    """
    config = config_of(job.model.model_name_or_path, job.model.model_revision)
    sections = job.training.build_rules()
    if needs(*sections.values()) & {"expected_discriminator", "entropies_at_one"}:
        check_plain_head(skeleton(config), ", ".join(name for rules in sections.values() for name in rules))
    shape = shape_of(config)
    trained = trained_parameters(shape, config, job.model)
    setup = setup_of(job.training, job.model, trained, *launched_as(os.environ), PROMPT_TOKENS)
    if os.environ.get("RANK", "0") != "0":
        return
    console = _console()
    known = isinstance(job.train_dataset, Dataset)
    problems = len(job.train_dataset) if known else None
    first = next(iter(job.train_dataset))["prompt"]
    console.print(f"model       {job.model.model_name_or_path}")
    console.print(f"problems    {problems if known else 'a stream'}; the first: {str(first)[:70]!r}", markup=False)
    console.print(f"rewards     {', '.join(_name(reward) for reward in job.reward_funcs)}")
    for section, built in {
        **sections,
        "rollout_rules": job.training.build_rollout_rules(),
    }.items():
        active = [str(rule) for rule in built.values() if not getattr(rule, "neutral", False)]
        if active:
            console.print(f"{section:11} {'; '.join(active)}")
    for controller in job.training.build_controllers():
        console.print(f"controller  {controller}", markup=False)
    name, gpu = _gpu()
    _print(job.training, shape, setup, gpu, name, problems)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def _name(reward) -> str:
    return getattr(reward, "__name__", type(reward).__name__)


def launched_as(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many processes were launched, and how they share the model, as accelerate and torchrun say it."""
    sharding = "none"
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        sharding = "fsdp"
    if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        sharding = "zero3" if stage == "3" else "zero2"
    return int(environment.get("WORLD_SIZE", "1")), sharding


def _gpu() -> tuple[str, GPU]:
    if not torch.cuda.is_available():
        return "h100", GPUS["h100"]
    name = torch.cuda.get_device_name().lower().replace(" ", "")
    found = next((key for key in sorted(GPUS, reverse=True) if key.split("-")[0] in name), "h100")
    return found, GPUS[found]._replace(memory=torch.cuda.get_device_properties(0).total_memory)


def setup_of(
    training: EntropyGRPOConfig, model: ModelConfig, trained: int, gpus: int, sharding: str, prompt: int
) -> Setup:
    """What the flags of a run say about its memory and time."""
    pooled = "pool" in needs(*training.build_rules().values())
    aligned = training.steps_per_generation % training.gradient_accumulation_steps == 0
    on_policy = training.steps_per_generation <= training.gradient_accumulation_steps and training.num_iterations == 1
    looks_ahead = pooled and training.pooling == "exact" and training.gradient_accumulation_steps > 1
    colocated = training.use_vllm and training.vllm_mode == "colocate"
    length = training.max_completion_length or 256  # TRL's default
    return Setup(
        gpus=gpus,
        sharding=sharding,
        weight_bytes=BYTES.get(model.dtype, 4),
        trained=trained,
        reference=training.beta > 0 and not model.use_peft,
        checkpointing=training.gradient_checkpointing,
        rows=training.per_device_train_batch_size,
        accumulation=training.gradient_accumulation_steps,
        generation_rows=training.per_device_train_batch_size * training.steps_per_generation,
        updates=training.steps_per_generation * training.num_iterations // training.gradient_accumulation_steps or 1,
        prompt_tokens=prompt,
        completion_tokens=length,
        forwards=int(not (on_policy and aligned)) + int(training.beta > 0) + int(looks_ahead),
        vllm_share=training.vllm_gpu_memory_utilization if colocated else 0.0,
    )


def trained_parameters(shape: Shape, config: PreTrainedConfig, model: ModelConfig) -> int:
    """How many parameters are trained: all, or those of an adapter."""
    peft = get_peft_config(model)
    if peft is None:
        return shape.parameters
    from peft import get_peft_model

    with torch.device("meta"):
        adapted = get_peft_model(skeleton(config), peft)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def _print(training: EntropyGRPOConfig, shape: Shape, setup: Setup, gpu: GPU, name: str, problems: int | None) -> None:
    console = _console()
    parts, times = memory(shape, setup, gpu), step_time(shape, setup, gpu)
    needed = peak(parts)
    rows = [*parts, Line("at the worst moment", needed, "what stays, and the larger of training and sampling")]
    console.print(_table(f"Memory of one of {setup.gpus} GPUs", "GB", rows, 1e9))
    fits = "fits" if needed < 0.92 * gpu.memory else "does not fit"
    console.print(f"{fits} into {gpu.memory / 1e9:.0f} GB ({name}), of which a tenth is left for the rest")
    total = sum(line.amount for line in times)
    rows = [*times, Line("an optimizer step", total, "every completion as long as it may be")]
    console.print(_table("Time", "s", rows, 1.0))
    prompts = setup.rows * setup.accumulation * setup.gpus / training.num_generations
    steps = training.max_steps
    if steps <= 0 and problems:
        steps = math.ceil(training.num_train_epochs * training.num_iterations * problems / prompts)
    if steps > 0:
        console.print(f"{steps} optimizer steps of {prompts:g} prompts: {total * steps / 3600:.1f} hours")
    else:
        console.print(f"an optimizer step has {prompts:g} prompts; --problems gives the hours of the run")


def _table(title: str, unit: str, lines: list[Line], scale: float) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column(unit, justify="right")
    table.add_column("how")
    for line in lines:
        table.add_row(line.name, f"{line.amount / scale:.3g}", line.why)
    return table
