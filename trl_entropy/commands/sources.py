"""Load the problems of a run, and prepare them before it starts."""

from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError
from trl import DatasetMixtureConfig, ScriptArguments, get_dataset

from .. import data
from ..checks import lab, unknown
from ..config import with_help
from ..control.presets import mapping_of
from ..data.columns import IMAGES, renamed
from ..data.files import EMBEDDED, LOCAL_FILES, check_split, first_line, is_one_dataset, load, on_main
from ..data.problems import check_benchmarks, check_column
from ..rewards.messages import check_one_kind, check_prompts, has_image, text_of, with_plain_text
from .procedural import PREFIX, draw_problems


WAYS = ("kmeans", "random")
DATASET_SIZE, EVAL_DATASET_SIZE = 1000, 100  # default numbers of drawn problems


@with_help
@dataclass
class SourceArguments(ScriptArguments):
    """
    Flags for problems: TRL's [`~trl.ScriptArguments`] and a few more.

    Args:
        dataset_name (`str`, *optional*):
            A dataset on the hub or a saved one, a .jsonl, .json, .parquet or .csv file, "embedded" (the default with
            the embedded policy), or "reasoning-gym:TASK" for generated problems.
        eval_dataset_name (`str`, *optional*):
            The held-out problems, named as in dataset_name; by default the split dataset_test_split of dataset_name.
        prompt_column (`str`, *optional*, defaults to `"prompt"`):
            Column with the problem. A dotted name means a nested column: prompt.0.content.
        solution_column (`str`, *optional*, defaults to `"solution"`):
            Column with the solution. A dotted name means a nested column: reward_model.ground_truth.
        instruction (`str`, *optional*):
            Line to append to every problem.
        chat (`bool`, *optional*, defaults to `False`):
            Whether to pass the problem to the chat template as a user message.
        system_prompt (`str`, *optional*):
            System message before the problem; implies chat.
        dataset_size (`int`, *optional*):
            Number of problems to draw from reasoning-gym; 1000 by default.
        eval_dataset_size (`int`, *optional*):
            Number of problems to draw and hold out; 100 by default.
        dataset_settings (`dict` or `str`, *optional*):
            Settings of the reasoning-gym task, as JSON on the command line.
        dataset_seed (`int`, *optional*, defaults to `0`):
            Seed of drawn problems, of the subset, and of a mixture's split.
        deduplicate (`bool`, *optional*, defaults to `False`):
            Whether to remove duplicate problems.
        duplicate_threshold (`float`, *optional*, defaults to `1.0`):
            Similarity from which deduplicate removes a problem; 1 means the same words.
        decontaminate (`list[str]`, *optional*):
            Benchmarks, or files with problems; training problems that share words with them are removed.
        benchmarks_dir (`str`, *optional*):
            Folder with NAME.jsonl or NAME/test.jsonl of the benchmarks; by default they come from the hub.
        subset_size (`int`, *optional*):
            Number of problems to train on; by default all.
        subset_by (`str`, *optional*, defaults to `"kmeans"`):
            How to choose subset_size problems: kmeans or random.
    """

    eval_dataset_name: str | None = None
    prompt_column: str = "prompt"
    solution_column: str = "solution"
    instruction: str | None = None
    chat: bool = False
    system_prompt: str | None = None
    dataset_size: int | None = None
    eval_dataset_size: int | None = None
    dataset_settings: dict | str | None = None
    dataset_seed: int = 0
    deduplicate: bool = False
    duplicate_threshold: float = 1.0
    decontaminate: list[str] | None = None
    benchmarks_dir: str | None = None
    subset_size: int | None = None
    subset_by: str = "kmeans"


def is_drawn(script: SourceArguments) -> bool:
    """Whether the problems are drawn from a reasoning-gym task."""
    return bool(script.dataset_name) and script.dataset_name.startswith(PREFIX)


def check(script: SourceArguments) -> None:
    """Raise `ValueError` for flags that do not fit together, before anything is loaded."""
    for name in ("dataset_size", "eval_dataset_size", "dataset_settings"):
        drawn = is_drawn(script) or (script.eval_dataset_name or "").startswith(PREFIX)
        if getattr(script, name) is not None and not drawn:
            raise ValueError(f"{name} only applies to drawn problems: set dataset_name to {PREFIX}TASK")
    for name in ("dataset_size", "eval_dataset_size", "subset_size"):
        if getattr(script, name) is not None and getattr(script, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(script, name)}")
    if script.subset_by not in WAYS:
        raise unknown("subset_by", script.subset_by, WAYS)
    if not 0 < script.duplicate_threshold <= 1:
        raise ValueError(f"duplicate_threshold must be a similarity in (0, 1], got {script.duplicate_threshold}")
    if script.duplicate_threshold < 1 and not script.deduplicate:
        raise ValueError("duplicate_threshold needs deduplicate")
    if script.benchmarks_dir is not None and not script.decontaminate:
        raise ValueError("benchmarks_dir needs decontaminate")
    check_benchmarks(script.decontaminate or [])
    if script.dataset_streaming and _selects(script):
        raise ValueError("deduplicate, decontaminate and subset_size need all problems: leave out dataset_streaming")


def load_train(script: SourceArguments, mixture: DatasetMixtureConfig) -> Dataset:
    """The problems to train on, as loaded."""
    if mixture.datasets:
        splits = _mixed(script, mixture)
        if script.dataset_train_split not in splits:
            raise ValueError(
                f"the mixture has no split {script.dataset_train_split!r}; available: {', '.join(splits)}: set "
                "dataset_train_split to one of them, or leave it out"
            )
        return splits[script.dataset_train_split]
    if script.dataset_name == EMBEDDED or is_drawn(script):
        check_split(script.dataset_name, script.dataset_train_split)
    if script.dataset_name == EMBEDDED:
        return data.train_problems()
    if is_drawn(script):
        return _drawn(script, script.dataset_name)[0]
    return _load(script, script.dataset_name, script.dataset_train_split)


def load_eval(script: SourceArguments, mixture: DatasetMixtureConfig, wish: str) -> Dataset:
    """The held-out problems, as loaded; `wish` says in an error what needs them."""
    name = script.eval_dataset_name or script.dataset_name
    if name is not None and (name == EMBEDDED or name.startswith(PREFIX)):
        check_split(name, script.dataset_test_split)
    if name == EMBEDDED:
        return data.held_out_problems()
    if name is not None and name.startswith(PREFIX):
        return _drawn(script, name)[1]
    if script.eval_dataset_name is None and mixture.datasets:
        splits = _mixed(script, mixture)
        if script.dataset_test_split not in splits:
            raise ValueError(
                f"{wish}, but the mixture has no split {script.dataset_test_split!r}: set the held-out problems as "
                "eval_dataset_name"
            )
        return splits[script.dataset_test_split]
    if script.eval_dataset_name is None and (Path(name).suffix in LOCAL_FILES or is_one_dataset(name)):
        kind = "file" if Path(name).suffix in LOCAL_FILES else "dataset without splits"
        raise ValueError(f"{wish}, but {name} is a single {kind}: set eval_dataset_name to the held-out problems")
    return _load(script, name, script.dataset_test_split)


def with_columns(script: SourceArguments, dataset: Dataset, needed: set[str]) -> Dataset:
    """
    The dataset with the problems as `prompt`, and the solutions as `solution` if they are needed.

    Raises `ValueError` for a missing column, a value that is not a prompt, or text beside conversations.
    """
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError("the dataset is empty")
    given = {"prompt": script.prompt_column}
    if "solution" in needed:
        given["solution"] = script.solution_column
    for column, name in given.items():
        check_column(dataset, name, f"{column}_column")
    if "reasoning_gym" in needed and "reasoning_gym" not in first:
        raise ValueError(f"reasoning_gym_reward scores its own problems: set dataset_name to {PREFIX}TASK")
    dataset = renamed(dataset, given, first)
    # a stream is not read in advance
    prompts = list(dataset["prompt"]) if isinstance(dataset, Dataset) else [next(iter(dataset))["prompt"]]
    check_prompts(prompts, script.prompt_column)
    check_one_kind(prompts, script.prompt_column)
    with_images = {*IMAGES} & {*first} or any(map(has_image, prompts))  # the parts say where the images go
    if with_images or prompts == list(map(with_plain_text, prompts)):
        return dataset
    return dataset.map(lambda prompt: {"prompt": with_plain_text(prompt)}, input_columns=["prompt"])


def selected(script: SourceArguments, dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The problems to train on, and lines that say what was removed; the same on every process."""
    if not _selects(script):
        return dataset, []

    def choose() -> tuple[list[int], list[str]]:
        of_names = lab("data.decontaminate", "decontaminate").benchmarks
        against = of_names(script.decontaminate, script.benchmarks_dir) if script.decontaminate else None
        threshold = script.duplicate_threshold if script.deduplicate else None
        texts = [text_of(prompt) for prompt in dataset["prompt"]]
        try:
            return lab("data.selection", "a selection of problems").select(
                texts, threshold, against, script.subset_size, script.subset_by, script.dataset_seed
            )
        except ImportError as error:
            raise ValueError(error) from error

    rows, lines = on_main(PartialState(), choose)
    return dataset.select(rows), lines


def with_messages(script: SourceArguments, dataset: Dataset) -> Dataset:
    """The problems with the instruction, and as messages if chat is set."""
    if not (script.instruction or script.chat or script.system_prompt):
        return dataset
    if not isinstance(next(iter(dataset))["prompt"], str):
        raise ValueError("instruction, chat and system_prompt need text prompts, but these are already conversations")
    ending = f"\n{script.instruction}" if script.instruction else ""
    system = [{"role": "system", "content": script.system_prompt}] if script.system_prompt else []

    def written(problem: str) -> dict[str, object]:
        text = problem + ending
        as_messages = script.chat or script.system_prompt
        return {"prompt": [*system, {"role": "user", "content": text}] if as_messages else text}

    return dataset.map(written, input_columns=["prompt"])


def _selects(script: SourceArguments) -> bool:
    return script.deduplicate or bool(script.decontaminate) or script.subset_size is not None


def _mixed(script: SourceArguments, mixture: DatasetMixtureConfig) -> DatasetDict:
    """The splits of a mixture, the same at every call and on every process; TRL splits at random."""
    try:
        whole = get_dataset(replace(mixture, test_split_size=None))
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = first_line(error.__cause__ or error)
        raise ValueError(f"the datasets of the mixture cannot be loaded: {reason}") from error
    if mixture.test_split_size is None:
        return whole
    return whole["train"].train_test_split(mixture.test_split_size, seed=script.dataset_seed)


def _load(script: SourceArguments, name: str, split: str) -> Dataset:
    return load(name, script.dataset_config, split, script.dataset_streaming)


def _drawn(script: SourceArguments, name: str) -> tuple[Dataset, Dataset]:
    train_size = script.dataset_size or DATASET_SIZE
    test_size = script.eval_dataset_size or EVAL_DATASET_SIZE
    settings = mapping_of("dataset_settings", script.dataset_settings)
    try:
        return draw_problems(name.removeprefix(PREFIX), settings, script.dataset_seed, train_size, test_size)
    except ImportError as error:
        raise ValueError(error) from error
