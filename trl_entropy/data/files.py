"""Load datasets and models by name: local, from the hub, or embedded."""

import os
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError


EMBEDDED_POLICY = Path(__file__).parent / "policy"
EMBEDDED = "embedded"
LOCAL_FILES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
FORMATS = ", ".join(LOCAL_FILES)


def load(
    name: str, config: str | None = None, split: str = "train", streaming: bool = False
) -> Dataset | IterableDataset:
    """
    Load a split of a dataset from the hub or a saved folder, or a whole local file.

    Args:
        name (`str`):
            Name on the hub, folder of `save_to_disk`, or file with one of the extensions in [`LOCAL_FILES`].
        config (`str`, *optional*):
            Configuration of a dataset on the hub.
        split (`str`, *optional*, defaults to `"train"`):
            The split; a file has none, so only the defaults of flags are accepted.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read rows on demand.

    Raises `ValueError`, with one line that names the dataset, if it cannot be read.
    """
    kind = None if os.path.isdir(name) else LOCAL_FILES.get(Path(name).suffix)
    if kind is not None and not os.path.exists(name):
        raise ValueError(f"there is no file {name!r}")
    if kind is not None and os.path.getsize(name) == 0:
        raise ValueError(f"the file {name!r} is empty")
    if kind is not None or is_one_dataset(name):
        check_split(name, split)
    try:
        if kind is not None:
            return load_dataset(kind, data_files=name, split="train", streaming=streaming)
        if os.path.isfile(os.path.join(name, "state.json")) or os.path.isfile(os.path.join(name, "dataset_dict.json")):
            return _split_of(load_from_disk(name), split)
        return load_dataset(name, config, split=split, streaming=streaming)
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = first_line(error.__cause__ or error)
        raise ValueError(f"the dataset {name!r} cannot be loaded: {reason}") from error


def check_split(name: str, split: str) -> None:
    """Raise `ValueError` for a split of a dataset that has none, except for those that flags have by default."""
    if split not in ("train", "test"):
        raise ValueError(f"the dataset {name!r} has no split {split!r}: leave it out")


def first_line(error: BaseException) -> str:
    """The first line of an error, for a one-line message."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


def on_main(state: PartialState, function: Callable[[], object]) -> object:
    """Call a function on the main process, and return its result, or raise its `ValueError`, on every process."""
    outcome = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = function()
        except ValueError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    return outcome[0]


def is_one_dataset(name: str) -> bool:
    """Whether the name is a folder of `save_to_disk` with a dataset that has no splits."""
    return os.path.isfile(os.path.join(name, "state.json"))


def _split_of(saved: Dataset | DatasetDict, split: str) -> Dataset:
    if isinstance(saved, Dataset):
        return saved
    if split not in saved:
        raise ValueError(f"it has no split {split!r}; available: {', '.join(saved)}")
    return saved[split]


def model_path(name: str, flag: str) -> str:
    """The folder of the embedded policy, or `name` itself; raises `ValueError` for a folder that does not exist."""
    if name == EMBEDDED:
        return str(EMBEDDED_POLICY)
    folder = os.path.dirname(name)
    looks_local = name.startswith((".", "/", "~")) or (folder and os.path.isdir(folder))
    if looks_local and not os.path.isdir(name):
        raise ValueError(f"{flag} must be a folder, got {name!r}")
    return name
