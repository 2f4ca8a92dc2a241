"""The flags of `trl-entropy eval`, checked before a model loads."""

import argparse
import os

from ...data.files import EMBEDDED, FORMATS
from ...data.problems import BENCHMARKS
from .prompts import TEMPLATES
from .sampling import Sampling


ENGINES = ("transformers", "vllm")
DTYPES = ("bfloat16", "float16", "float32")
# on the embedded problems, whose answers are short; on benchmarks, as the papers have it; on other datasets
NUM_SAMPLES = {"embedded": 8, "benchmarks": 64, "dataset": 8}
MAX_NEW_TOKENS = {"embedded": 16, "benchmarks": 3072, "dataset": 3072}
BATCH_SIZE = {"transformers": 64, "vllm": 4096}


def read(arguments: list[str]) -> argparse.Namespace:
    """The flags, with their defaults filled in; raises `ValueError` with one line for a wrong one."""
    parser = argparse.ArgumentParser(
        prog="trl-entropy eval",
        description="Sample a model several times on each problem: accuracy, diversity and calibration with standard "
        "errors. A run that was killed goes on where it stopped; under accelerate launch, processes share the work.",
        allow_abbrev=False,
        exit_on_error=False,
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


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The flags as they are given; raises `ValueError` with one line for a wrong one."""
    parser.error = _raise
    try:
        return parser.parse_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(error) from error


def add_flags(parser: argparse.ArgumentParser, split: str = "test") -> None:
    """The flags that say what is drawn, from which split of a dataset by default, and how it is graded."""
    model = parser.add_argument_group("model")
    model.add_argument("--model", help=f"folder, checkpoint or name on the hub, or {EMBEDDED!r}")
    model.add_argument("--revision", help="revision of a model of the hub")
    model.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on an accelerator, else float32")
    model.add_argument("--engine", choices=ENGINES, default="transformers", help="what draws; default: transformers")
    model.add_argument(
        "--vllm_gpu_memory_utilization", type=float, default=0.5, help="share of the GPU for vLLM; default: 0.5"
    )
    problems = parser.add_argument_group("problems")
    problems.add_argument(
        "--dataset",
        help=f"name of the hub, saved dataset, file ({FORMATS}), or {EMBEDDED!r}, which is the embedded "
        "policy's default",
    )
    problems.add_argument("--dataset_config", help="configuration of the dataset")
    problems.add_argument("--dataset_split", default=split, help=f"split of the dataset; default: {split}")
    problems.add_argument(
        "--prompt_column",
        default="prompt",
        help="column that holds the problem, dotted inside of another (prompt.0.content); default: prompt",
    )
    problems.add_argument("--solution_column", default="solution", help="the same of the solution; default: solution")
    problems.add_argument("--benchmarks", nargs="+", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}")
    problems.add_argument("--benchmarks_dir", help="folder with NAME.jsonl or NAME/test.jsonl; default: the hub")
    problems.add_argument("--limit", type=int, help="take the first problems only, this many of each set")
    problems.add_argument("--template", default="auto", help=f"{', '.join(TEMPLATES)}; default: auto")
    sampling = parser.add_argument_group("samples")
    sampling.add_argument("--num_samples", type=int, help="of each problem; default: 64 of benchmarks, else 8")
    sampling.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest token; default: 1")
    sampling.add_argument("--top_p", type=float, default=1.0, help="default: 1")
    sampling.add_argument("--max_new_tokens", type=int, help="default: 3072; 16 for the embedded problems")
    sampling.add_argument("--batch_size", type=int, help="responses drawn at once; default: 64, or 4096 by vLLM")
    sampling.add_argument("--seed", type=int, default=0, help="default: 0")
    grading = parser.add_argument_group("grading")
    grading.add_argument(
        "--answer_from", nargs="+", default=["boxed"], help="as for `trl-entropy grpo`; default: boxed"
    )
    grading.add_argument("--grading_deadline", type=float, default=3.0, help="seconds for each answer; default: 3")
    grading.add_argument("--grading_workers", type=int, help="processes; by default the cores, at most 8")


def _add_results(parser: argparse.ArgumentParser) -> None:
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output_dir",
        default="out/eval",
        help="folder for them; samples that it holds are kept and not drawn again; default: out/eval",
    )
    results.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; default: 1000")
    results.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="print what B has more than A, two output folders; no sampling"
    )


def fill_in(given: argparse.Namespace) -> None:
    """Defaults that depend on other flags; raises `ValueError` for flags that do not go together."""
    if given.model is None:
        raise ValueError(f"give --model, a folder, a name on the hub or {EMBEDDED!r}, or --compare A B")
    if given.dataset is not None and given.benchmarks:
        raise ValueError("give --dataset or --benchmarks, not both")
    if given.dataset is None and not given.benchmarks:
        if given.model != EMBEDDED:
            raise ValueError("give --dataset or --benchmarks")
        given.dataset = EMBEDDED
    if given.benchmarks_dir is not None and not given.benchmarks:
        raise ValueError("benchmarks_dir needs --benchmarks")
    if os.path.exists(given.output_dir) and not os.path.isdir(given.output_dir):
        raise ValueError(f"output_dir is no folder: {given.output_dir!r}")
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


def _raise(message: str):
    raise ValueError(message)
