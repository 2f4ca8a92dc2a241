"""`trl-entropy eval`: from flags to a table, files and pictures."""

import argparse
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from ...commands.cli import refuse
from ...data.files import model_path, on_main
from ...data.problems import Problem, read_benchmark, read_dataset
from ...rewards import MathVerifyReward
from ...rewards.verifier import Verifier
from ...written import check_not_in_dataset
from .between import differences_between
from .drawing import Policy
from .flags import read
from .model import Source, context_of, digest, load, source_of, tokenizer_of, weights_of
from .prompts import encode, resolve_template
from .run import Task, draw_missing, missing_rows, write_results
from .table import difference_table, score_tables
from .vllm_engine import VLLMEngine, check_vllm


def main(arguments: list[str]) -> None:
    """`trl-entropy eval`."""
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        given = read(arguments)
        compare(given) if given.compare else evaluate(given)
    except (OSError, ValueError) as error:
        refuse("eval", error)


def evaluate(given: argparse.Namespace) -> None:
    """Draw what is missing, then print and write the scores; errors are those of [`draw`]."""
    state, reward, tasks = draw(given, lambda: _sets(given))
    on_main(state, lambda: _report(given, tasks, reward.verifier))


def draw(
    given: argparse.Namespace, read_sets: Callable[[], dict[str, list[Problem]]]
) -> tuple[PartialState, MathVerifyReward, list[Task]]:
    """
    Draw the samples that are missing of each set of problems.

    Raises `ValueError` with one line for what is wrong with model, problems or output folder, before a model loads.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    reward = MathVerifyReward(given.answer_from, given.grading_deadline, given.grading_workers, math.inf)
    if given.dataset:
        check_not_in_dataset(given.output_dir, given.dataset)
    path = model_path(given.model, "model")
    dtype = given.dtype or ("float32" if state.device.type == "cpu" else "bfloat16")
    if given.engine == "vllm":
        check_vllm()
        if state.num_processes > 1:
            raise ValueError("engine=vllm draws with one process; start it without accelerate launch")
    with state.main_process_first():
        sets = read_sets()
        source = source_of(path, given.revision)
        if source.base is not None and given.engine == "vllm":
            raise ValueError(
                f"engine=vllm needs a whole model, and {path!r} is an adapter: save what merge_and_unload() of peft "
                "gives, or take engine=transformers"
            )
        context = context_of(source)
        tokenizer = tokenizer_of(source)
    given.template = resolve_template(given.template, tokenizer)
    settings = _settings(given, source, dtype)
    tasks = [_task(given, name, problems, tokenizer, settings) for name, problems in sets.items()]
    _check_length(tasks, given.max_new_tokens, context)
    missing = [missing_rows(task, given.sampling, state) for task in tasks]
    if any(missing):
        policy = _policy(given, source, dtype, tokenizer, state)
        for task, rows in zip(tasks, missing, strict=True):
            draw_missing(task, rows, policy, given.sampling, reward, state)
    return state, reward, tasks


def compare(given: argparse.Namespace) -> None:
    """Print what one output folder has more than another; raises `ValueError` if they cannot be compared."""
    first, second = given.compare
    verifier = Verifier(given.grading_deadline, given.grading_workers, batch_deadline=math.inf)
    for name, differences in differences_between(first, second, given.resamples, verifier).items():
        Console().print(difference_table(f"{name}: {second} - {first}", differences))


def _report(given: argparse.Namespace, tasks: list[Task], verifier: Verifier) -> None:
    flags = {name: value for name, value in vars(given).items() if name not in ("sampling", "compare")}
    tables = {task.name: write_results(task, given.sampling, verifier, flags, given.resamples) for task in tasks}
    console = Console()
    console.print(*score_tables(tables, console.width), sep="\n")
    print(f"results: {given.output_dir}")


def _sets(given: argparse.Namespace) -> dict[str, list[Problem]]:
    if given.benchmarks:
        sets = {name: read_benchmark(name, given.benchmarks_dir) for name in given.benchmarks}
    else:
        columns = given.prompt_column, given.solution_column
        sets = {given.dataset: read_dataset(given.dataset, given.dataset_config, given.dataset_split, *columns)}
    return {name: problems[: given.limit] for name, problems in sets.items()}


def _check_length(tasks: list[Task], max_new_tokens: int, context: int | None) -> None:
    longest = max(len(prompt) for task in tasks for prompt in task.prompts)
    if context is not None and longest + max_new_tokens > context:
        raise ValueError(
            f"the longest prompt has {longest} tokens, which with max_new_tokens={max_new_tokens} is more than the "
            f"{context} of the model's context: lower max_new_tokens"
        )


def _settings(given: argparse.Namespace, source: Source, dtype: str) -> dict[str, object]:
    """What the samples of any set of problems depend on."""
    sampling = {name: value for name, value in asdict(given.sampling).items() if name != "batch_size"}
    names = ("model", "revision", "engine", "template", "answer_from")
    return {
        **{name: getattr(given, name) for name in names},
        "weights": weights_of(source),
        "dtype": dtype,
        **sampling,
    }


def _task(
    given: argparse.Namespace,
    name: str,
    problems: list[Problem],
    tokenizer: PreTrainedTokenizerBase,
    settings: dict[str, object],
) -> Task:
    folder = Path(given.output_dir)
    return Task(
        name=name,
        folder=folder / name if given.benchmarks else folder,
        problems=problems,
        prompts=encode([problem.prompt for problem in problems], tokenizer, given.template),
        settings={**settings, **identity(problems)},
    )


def identity(problems: Sequence[Problem]) -> dict[str, object]:
    """What tells a set of problems from another."""
    written = json.dumps([[problem.prompt, problem.solution] for problem in problems])
    return {"problems": digest([written.encode()]), "num_problems": len(problems)}


def _policy(
    given: argparse.Namespace, source: Source, dtype: str, tokenizer: PreTrainedTokenizerBase, state: PartialState
) -> Policy:
    engine = None
    if given.engine == "vllm":
        engine = VLLMEngine(source.path, given.revision, dtype, given.vllm_gpu_memory_utilization)
    return Policy(load(source, dtype).to(state.device), tokenizer, engine)
