"""Write a command's output completely or not at all, never over its input, over other files only with --overwrite."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


SCRATCH = ".part-"  # start of the name of the folder that holds files until they are complete


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the flag that allows replacing files."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file; refused without it")


def check_output(output: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """
    Check, before any work is done, that a file may be written.

    Args:
        output (`str` or `Path`):
            The file.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether it may replace an existing file. It never replaces an input.
        inputs (`Iterable[str | Path]`, *optional*):
            The command's inputs: files, folders with all files in them, and names that are not on this disk.

    Raises `ValueError` if the file is an input under any path or link, if it exists and `overwrite` is not set, if it
    is a folder or a device, or if its folder cannot be created or written to.
    """
    path = os.path.realpath(output)
    if os.path.isdir(path):
        raise ValueError(f"{str(output)!r} is a folder: give the path of a file")
    for name in inputs:
        if _is_input(path, name):
            raise ValueError(f"{str(output)!r} would overwrite the input {str(name)!r}: give another path")
    if os.path.lexists(path):
        if not os.path.isfile(path):
            raise ValueError(f"{str(output)!r} is not a regular file: give another path")
        if not overwrite:
            raise ValueError(f"{str(output)!r} exists: give another path, or --overwrite to replace it")
    _check_folder_of(path, output)


def check_new_folder(output_dir: str | Path) -> None:
    """Check, before any work, that a folder is new or empty; raises `ValueError` if it is not or cannot be created."""
    path = os.path.realpath(output_dir)
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise ValueError(f"output_dir={str(output_dir)!r} is not empty: give a new or an empty folder.")
    _check_folder_of(path, output_dir)


@contextmanager
def written(output: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """
    Lend a temporary path for a file or a folder, which moves to its place when it is complete.

    If the block raises or the process is killed in it, an earlier file stays unchanged.

    Args:
        output (`str` or `Path`):
            Where the result goes: a link is followed, and a folder must be new or empty.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether it may replace a file.

    Raises what [`written_together`] raises.
    """
    path = Path(os.path.realpath(output))
    with written_together(path.parent, overwrite) as scratch:
        yield scratch / path.name


@contextmanager
def written_together(folder: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """
    Lend an empty folder; its contents move into `folder` at the end, which is created if needed.

    Args:
        folder (`str` or `Path`):
            Where the files go.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether they may replace existing files.

    Raises `ValueError` if a file exists by then and `overwrite` is not set, and `OSError` that names the folder if the
    disk is full or the folder is not writable.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:  # on the same disk as `folder`
            yield Path(scratch)
            parts = sorted(Path(scratch).iterdir())
            for part in parts:
                _finish(part, folder / part.name, overwrite)
            for part in parts:
                os.replace(part, folder / part.name)
    except OSError as error:  # the error for a full disk does not name a file
        raise OSError(f"{str(folder)!r} cannot be written to ({error.strerror or error})") from error


def _finish(part: Path, path: Path, overwrite: bool) -> None:
    if part.is_file():
        check_output(path, overwrite)
        if path.exists():
            shutil.copymode(path, part)
    for file in (part, *part.rglob("*")):
        if file.is_file():
            with open(file, "rb+") as content:
                os.fsync(content.fileno())  # else a crash of the machine may leave an empty file


def _check_folder_of(path: str, output: str | Path) -> None:
    folder = next(str(parent) for parent in Path(path).parents if os.path.lexists(parent))
    if not os.path.isdir(folder):
        raise ValueError(f"{str(output)!r} cannot be written: {folder!r} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{str(output)!r} cannot be written: you have no permission to write to {folder!r}")


def _is_input(path: str, name: str | Path) -> bool:
    """Whether a path is this file, or a file in this folder, under any path or link."""
    if not os.path.isdir(name):
        return os.path.realpath(name) == path or _same(path, name)
    files = (os.path.join(root, file) for root, _, found in os.walk(name) for file in found)
    return os.path.exists(path) and any(_same(path, file) for file in files)


def check_not_in_dataset(output: str | Path, dataset: str | Path) -> None:
    """Raise `ValueError` for an output in a dataset's folder, where every file is read as data."""
    if os.path.isdir(dataset) and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(dataset)):
        raise ValueError(f"{str(output)!r} is inside the dataset {str(dataset)!r}: give another path")


def _same(path: str, other: str | Path) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)
