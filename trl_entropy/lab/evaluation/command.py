"""`trl-entropy eval`: from flags to a table, files and plots."""

import argparse
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console

from ...commands.cli import parse, refuse
from ...data.files import EMBEDDED, FORMATS, model_path, on_main
from ...data.problems import BENCHMARKS, Problem, read_benchmark, read_dataset
from ...rewards import MathVerifyReward
from ...rewards.verifier import Verifier
from ...written import check_not_in_dataset
from .figures import difference_table, score_tables
from .model import (
    TEMPLATES,
    Source,
    context_of,
    digest,
    encode,
    load,
    resolve_template,
    source_of,
    tokenizer_of,
    weights_of,
)
from .paired import differences_between
from .run import Task, missing_samples, sample_missing, says_what_is_kept, write_results
from .sampling import Policy, Sampling, VLLMEngine, check_vllm


ENGINES = ("transformers", "vllm")
DTYPES = ("bfloat16", "float16", "float32")
# for the embedded problems, whose answers are short; for benchmarks, as in the papers; for other datasets
NUM_SAMPLES = {"embedded": 8, "benchmarks": 64, "dataset": 8}
MAX_NEW_TOKENS = {"embedded": 16, "benchmarks": 3072, "dataset": 3072}
BATCH_SIZE = {"transformers": 64, "vllm": 4096}


def main(arguments: list[str]) -> None:
    """`trl-entropy eval`."""
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        given = read(arguments)
        compare(given) if given.compare else evaluate(given)
    except (OSError, ValueError) as error:
        refuse("eval", error)


def evaluate(given: argparse.Namespace) -> None:
    """Sample the missing responses, then print and write the scores; raises as [`sample`] does."""
    state, reward, tasks = sample(given, lambda: _sets(given))
    with says_what_is_kept(tasks):
        on_main(state, lambda: _report(given, tasks, reward.verifier))


def sample(
    given: argparse.Namespace, read_sets: Callable[[], dict[str, list[Problem]]]
) -> tuple[PartialState, MathVerifyReward, list[Task]]:
    """
    Sample the missing responses of each set of problems.

    Raises `ValueError` with one line for a wrong model, problem or output folder, before a model loads.
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
            raise ValueError("engine=vllm samples in one process: start it without accelerate launch")
    with state.main_process_first():
        sets = read_sets()
        source = source_of(path, given.revision)
        if source.base is not None and given.engine == "vllm":
            raise ValueError(
                f"engine=vllm needs a whole model, but {path!r} is an adapter: save the result of peft's "
                "merge_and_unload(), or set engine=transformers"
            )
        context = context_of(source)
        tokenizer = tokenizer_of(source)
    given.template = resolve_template(given.template, tokenizer)
    settings, folder = _settings(given, source, dtype), Path(given.output_dir)
    tasks = [
        Task(
            name,
            folder / name if given.benchmarks else folder,
            problems,
            prompts=encode([problem.prompt for problem in problems], tokenizer, given.template),
            settings={**settings, **identity(problems)},
        )
        for name, problems in sets.items()
    ]
    _check_length(tasks, given.max_new_tokens, context)
    with says_what_is_kept(tasks):
        missing = [missing_samples(task, given.sampling, state) for task in tasks]
        if any(missing):
            engine = None
            if given.engine == "vllm":
                engine = VLLMEngine(source.path, given.revision, dtype, given.vllm_gpu_memory_utilization)
            policy = Policy(load(source, dtype).to(state.device), tokenizer, engine)
            for task, ids in zip(tasks, missing, strict=True):
                sample_missing(task, ids, policy, given.sampling, reward, state)
    return state, reward, tasks


def compare(given: argparse.Namespace) -> None:
    """Print the differences between two output folders; raises `ValueError` if they cannot be compared."""
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
            f"the longest prompt has {longest} tokens, which with max_new_tokens={max_new_tokens} exceeds the model's "
            f"context of {context} tokens: lower max_new_tokens"
        )


def _settings(given: argparse.Namespace, source: Source, dtype: str) -> dict[str, object]:
    """The settings that the samples depend on, for any set of problems."""
    sampling = {name: value for name, value in asdict(given.sampling).items() if name != "batch_size"}
    names = ("model", "revision", "engine", "template", "answer_from")
    return {
        **{name: getattr(given, name) for name in names},
        "weights": weights_of(source),
        "dtype": dtype,
        **sampling,
    }


def identity(problems: Sequence[Problem]) -> dict[str, object]:
    """What distinguishes one set of problems from another."""
    written = json.dumps([[problem.prompt, problem.solution] for problem in problems])
    return {"problems": digest([written.encode()]), "num_problems": len(problems)}


# Flags


def read(arguments: list[str]) -> argparse.Namespace:
    """Parse the flags and fill in defaults; raises `ValueError` with one line for a wrong flag."""
    parser = argparse.ArgumentParser(
        prog="trl-entropy eval",
        description="Sample a model several times per problem, and report accuracy, diversity and calibration with "
        "standard errors. An interrupted run resumes. Under accelerate launch, the processes share the work.",
        allow_abbrev=False,
    )
    add_flags(parser)
    _add_results(parser)
    given = parse(parser, arguments)
    if given.resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {given.resamples}")
    share = given.vllm_gpu_memory_utilization
    if not 0 < share <= 1:
        raise ValueError(f"vllm_gpu_memory_utilization must be above 0 and at most 1, got {share}")
    if not given.compare:
        fill_in(given)
    return given


def add_flags(parser: argparse.ArgumentParser, split: str = "test") -> None:
    """Add the flags for sampling and grading; `split` is the default split of a dataset."""
    model = parser.add_argument_group("model")
    model.add_argument(
        *("--model_name_or_path", "--model"),
        dest="model",
        help=f"folder, checkpoint or name on the hub, or {EMBEDDED!r}",
    )
    model.add_argument("--revision", help="revision of a model on the hub")
    model.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on an accelerator, else float32")
    model.add_argument(
        "--engine", choices=ENGINES, default="transformers", help="sampling engine; default: transformers"
    )
    model.add_argument(
        "--vllm_gpu_memory_utilization", type=float, default=0.5, help="share of the GPU for vLLM; default: 0.5"
    )
    problems = parser.add_argument_group("problems")
    add_dataset(problems, split)
    problems.add_argument("--solution_column", default="solution", help="column with the solution; default: solution")
    problems.add_argument("--benchmarks", nargs="+", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}")
    problems.add_argument("--benchmarks_dir", help="folder with NAME.jsonl or NAME/test.jsonl; default: the hub")
    problems.add_argument("--limit", type=int, help="only use this many problems of each set, from its start")
    problems.add_argument("--template", default="auto", help=f"{', '.join(TEMPLATES)}; default: auto")
    sampling = parser.add_argument_group("samples")
    sampling.add_argument("--num_samples", type=int, help="samples per problem; default: 64 for benchmarks, else 8")
    sampling.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest token; default: 1")
    sampling.add_argument("--top_p", type=float, default=1.0, help="default: 1")
    sampling.add_argument("--max_new_tokens", type=int, help="default: 3072; 16 for the embedded problems")
    sampling.add_argument("--batch_size", type=int, help="responses to sample at once; default: 64, or 4096 with vLLM")
    sampling.add_argument("--seed", type=int, default=0, help="default: 0")
    grading = parser.add_argument_group("grading")
    grading.add_argument(
        "--answer_from", nargs="+", default=["boxed"], help="as for `trl-entropy grpo`; default: boxed"
    )
    grading.add_argument("--grading_deadline", type=float, default=3.0, help="seconds per answer; default: 3")
    grading.add_argument(
        "--grading_workers", type=int, help="number of processes; default: number of cores, at most 8"
    )


def add_dataset(parser, split: str, required: bool = False) -> None:
    """Add the flags for the dataset to read."""
    parser.add_argument(
        *("--dataset_name", "--dataset"),
        dest="dataset",
        required=required,
        help=f"name on the hub, saved dataset, file ({FORMATS}), or {EMBEDDED!r} for the embedded policy's problems",
    )
    parser.add_argument("--dataset_config", help="configuration of the dataset")
    parser.add_argument(
        *("--dataset_split", f"--dataset_{split}_split"),
        dest="dataset_split",
        default=split,
        help=f"split of the dataset; default: {split}",
    )
    parser.add_argument(
        "--prompt_column",
        default="prompt",
        help="column with the problem; a dotted name means a nested column (prompt.0.content); default: prompt",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output_dir",
        default="out/eval",
        help="folder for the results; existing samples in it are kept; default: out/eval",
    )
    results.add_argument("--resamples", type=int, default=1000, help="resamples of the bootstrap; default: 1000")
    results.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="print B - A for two output folders, without sampling"
    )


def fill_in(given: argparse.Namespace) -> None:
    """Fill in defaults that depend on other flags; raises `ValueError` for flags that do not fit together."""
    if given.model is None:
        raise ValueError(
            f"set --model_name_or_path to a folder, a name on the hub or {EMBEDDED!r}, or use --compare A B"
        )
    if given.dataset is not None and given.benchmarks:
        raise ValueError("set --dataset_name or --benchmarks, not both")
    if given.dataset is None and not given.benchmarks:
        if given.model != EMBEDDED:
            raise ValueError("set --dataset_name or --benchmarks")
        given.dataset = EMBEDDED
    if given.benchmarks_dir is not None and not given.benchmarks:
        raise ValueError("benchmarks_dir needs --benchmarks")
    if os.path.exists(given.output_dir) and not os.path.isdir(given.output_dir):
        raise ValueError(f"output_dir must be a folder, got {given.output_dir!r}")
    if given.limit is not None and given.limit < 1:
        raise ValueError(f"limit must be at least 1, got {given.limit}")
    kind = "benchmarks" if given.benchmarks else "embedded" if given.dataset == EMBEDDED else "dataset"
    for name, defaults, key in (
        ("num_samples", NUM_SAMPLES, kind),
        ("max_new_tokens", MAX_NEW_TOKENS, kind),
        ("batch_size", BATCH_SIZE, given.engine),
    ):
        if getattr(given, name) is None:
            setattr(given, name, defaults[key])
    given.sampling = Sampling(
        given.num_samples, given.temperature, given.top_p, given.max_new_tokens, given.batch_size, given.seed
    )
