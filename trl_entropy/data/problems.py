"""Load problems with solutions, from benchmarks by name and from your own datasets."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from ..checks import unknown
from ..rewards.messages import check_prompts, has_image, text_of, with_plain_text
from . import held_out_problems
from .columns import IMAGES, column_names, is_there, values_at
from .files import EMBEDDED, LOCAL_FILES, check_split, load


class Benchmark(NamedTuple):
    """A benchmark's place on the hub, and other names for its folder or file."""

    hub: str
    config: str | None = None
    split: str = "test"
    aliases: tuple[str, ...] = ()


BENCHMARKS = {
    "aime24": Benchmark("HuggingFaceH4/aime_2024", split="train"),
    "aime25": Benchmark("math-ai/aime25"),
    "amc23": Benchmark("math-ai/amc23"),
    "gsm8k": Benchmark("openai/gsm8k", "main"),
    "math500": Benchmark("HuggingFaceH4/MATH-500"),
    "minerva": Benchmark("math-ai/minervamath", aliases=("minerva_math",)),
    "olympiadbench": Benchmark("math-ai/olympiadbench"),
}
# Columns for problem and solution in the usual layouts of benchmarks; the first that exists is used
PROMPTS = ("problem", "question", "prompt")
SOLUTIONS = ("answer", "final_answer", "reward_model", "solution")


class Problem(NamedTuple):
    """A prompt, as text or conversation, and one or several solutions."""

    prompt: str | list[dict[str, str]]
    solution: object


def read_benchmark(name: str, folder: str | None = None) -> list[Problem]:
    """
    The problems of a benchmark.

    Args:
        name (`str`):
            One of [`BENCHMARKS`].
        folder (`str`, *optional*):
            Folder with the benchmark as `<name>.jsonl`, `<name>_test.jsonl`, `<name>/test.jsonl` or `*_<name>.jsonl`,
            in any of the usual layouts; by default it comes from the hub.

    Raises `ValueError` for an unknown name, or if the benchmark does not exist there.
    """
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    benchmark = BENCHMARKS[name]
    if folder is None:
        dataset = load(benchmark.hub, benchmark.config, benchmark.split)
    else:
        dataset = load(benchmark_file(name, folder))
    columns = [next((column for column in known if column in dataset.column_names), None) for known in _LAYOUT]
    if None in columns:
        raise ValueError(
            f"the benchmark {name!r} needs a column {' or '.join(PROMPTS)} and one of {', '.join(SOLUTIONS)}; it has "
            f"{', '.join(dataset.column_names)}"
        )
    prompts, solutions = (dataset[column] for column in columns)
    problems = checked(prompts, map(_truth, solutions), columns[0], source=f"the benchmark {name!r}")
    return [Problem(_text(prompt), solution) for prompt, solution in problems]


LOOKED_AT = 1000  # rows to search for one with a nested column
_LAYOUT = (PROMPTS, SOLUTIONS)


def read_dataset(
    name: str,
    config: str | None = None,
    split: str = "test",
    prompt_column: str = "prompt",
    solution_column: str = "solution",
) -> list[Problem]:
    """
    The problems of a dataset.

    Args:
        name (`str`):
            "embedded" for the embedded held-out problems, or a name for [`~data.files.load`].
        config, split (`str`, *optional*):
            Configuration and split of a dataset from the hub or a saved one.
        prompt_column, solution_column (`str`, *optional*):
            Columns with problem and solution; a dotted name means a nested column.

    Raises `ValueError` if the dataset or column does not exist or has no problems.
    """
    if name == EMBEDDED:
        check_split(name, split)
        return problems_of(held_out_problems())
    return problems_of(load(name, config, split), prompt_column, solution_column)


def problems_of(dataset: Dataset, prompt_column: str = "prompt", solution_column: str = "solution") -> list[Problem]:
    """The problems in two columns of a dataset; raises as [`read_dataset`] does."""
    prompts = values_in(dataset, prompt_column, "prompt_column")
    solutions = values_in(dataset, solution_column, "solution_column")
    return checked(prompts, solutions, prompt_column, dataset.column_names)


def values_in(dataset: Dataset, column: str, flag: str) -> list:
    """A column, nested or not; raises `ValueError` if there are no rows, or no such column, naming the flag then."""
    if len(dataset) == 0:
        raise ValueError("the dataset is empty")
    check_column(dataset, column, flag)
    return values_at(dataset, column)


def check_column(rows: Iterable[Mapping[str, object]], column: str, flag: str) -> None:
    """Raise `ValueError`, naming the flag, for a column, nested or not, that none of the first rows has."""
    first = next(iter(rows))
    if not is_there(first, column) and not any(is_there(row, column) for row in islice(rows, LOOKED_AT)):
        raise ValueError(f"{unknown('dataset column', column, column_names(first))}; set {flag}")


def checked(
    prompts: Sequence,
    solutions: Iterable,
    column: str,
    columns: Collection[str] = (),
    source: str = "the dataset",
) -> list[Problem]:
    """
    Problems from the prompts in a column of a dataset, and their solutions.

    Raises `ValueError` for a value that is not a prompt, and for images, which would be ignored.
    """
    for image in sorted({*IMAGES} & {*columns}):
        raise ValueError(f"only the text of a problem is used, but the dataset has images: drop the column {image!r}")
    check_prompts(prompts, column, source)
    for row, prompt in enumerate(prompts):
        if has_image(prompt):
            raise ValueError(
                f"only the text of a problem is used, but row {row} of {source} has an image: drop the image"
            )
    return list(map(Problem, map(with_plain_text, prompts), solutions))


def benchmark_file(name: str, folder: str) -> str:
    """The file of a benchmark in a folder; raises `ValueError` if there is none."""
    if not Path(folder).is_dir():
        raise ValueError(f"benchmarks_dir must be a folder, got {folder!r}")
    for known in (name, *BENCHMARKS[name].aliases):
        for pattern in (f"{known}.jsonl", f"{known}_test.jsonl", f"{known}/test.jsonl", f"*_{known}.jsonl"):
            found = sorted(Path(folder).glob(pattern))
            if found:
                return str(found[0])
    raise ValueError(f"{folder!r} holds neither {name}.jsonl nor {name}/test.jsonl")


def _text(prompt: str | list[Mapping[str, str]]) -> str | list[Mapping[str, str]]:
    """The problem itself if a benchmark has it as a user message, so that a template can be put around it."""
    alone = not isinstance(prompt, str) and [message["role"] for message in prompt] == ["user"]
    return text_of(prompt) if alone else prompt


def _truth(solution: object) -> object:
    """A number as text, and the answer from verl's layout."""
    if isinstance(solution, Mapping):
        solution = solution["ground_truth"]
    return str(int(solution)) if isinstance(solution, float) and solution.is_integer() else solution


def check_benchmarks(names: Sequence[str]) -> None:
    """Raise `ValueError` for a name that is neither a benchmark nor a file."""
    for name in names:
        if Path(name).suffix not in LOCAL_FILES and name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS)
