"""Where runs are, and what to call them."""

import re
from collections.abc import Sequence
from pathlib import Path

from .runs import LOOKED_FOR, METRICS, SCORES, Run, read_json, read_run, state_file


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """
    The runs in folders: a run's own, one that holds runs, or one that holds folders of runs (`seed1/grpo`).

    Raises `ValueError` if a folder has none, or a file of a run cannot be read.
    """
    folders = {}
    for given in paths:
        found = _folders(Path(given))
        if not found:
            kind = "has no run" if Path(given).is_dir() else "is no folder"
            raise ValueError(
                f"{str(given)!r} {kind}: looked for {LOOKED_FOR} in it, in the folders in it and in those in them"
            )
        folders |= dict.fromkeys(folder.resolve() for folder in found)
    return [read_run(folder, name) for folder, name in zip(folders, _names(list(folders)), strict=True)]


def _folders(path: Path, depth: int = 2) -> list[Path]:
    if (path / METRICS).is_file() or state_file(path) is not None:
        return [path]
    if depth == 0 or not path.is_dir():
        return []
    scores = path / SCORES
    arms = {name: place for place, name in enumerate(read_json(scores))} if scores.is_file() else {}
    inside = [folder for folder in path.iterdir() if folder.is_dir()]
    inside.sort(key=lambda folder: (arms.get(folder.name, len(arms)), _natural(folder)))  # arms as they were given
    return [run for folder in inside for run in _folders(folder, depth - 1)]


def _natural(folder: Path) -> list:
    """A key that puts `seed2` before `seed10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", folder.name)]


def _names(folders: list[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    lengths = [1] * len(folders)
    while True:
        names = ["/".join(folder.parts[-length:]) for folder, length in zip(folders, lengths, strict=True)]
        shared = [names.count(name) > 1 for name in names]
        if not any(shared):
            return names
        lengths = [length + same for length, same in zip(lengths, shared, strict=True)]
