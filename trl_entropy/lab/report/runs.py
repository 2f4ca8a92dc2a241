"""Find runs, and read their files."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


METRICS, STATE, SCORES = "metrics.jsonl", "trainer_state.json", "compare.json"
LOOKED_FOR = f"{METRICS}, {STATE} and checkpoint-*/{STATE}"


class Series(NamedTuple):
    """The values of one metric, and the optimizer steps at which they were logged."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Run:
    """
    The logs and settings of one run.

    Args:
        name (`str`):
            Its name in the report.
        path (`Path`):
            Its folder.
        series (`dict[str, Series]`):
            Every metric, by TRL's key.
        settings (`dict`):
            The config; empty if the run has not saved it.
        versions (`dict[str, str]`):
            The versions of its packages; empty if unknown.
        scores (`dict[str, dict[str, float]]`):
            Scores on held-out problems `before` and `after`, of an arm of `trl-entropy compare`.
        max_steps (`int`, *optional*):
            Planned number of optimizer steps; `None` if unknown.
        last_time (`float`, *optional*):
            The time of its last log or of its state, in seconds since the epoch.
        unreadable (`int`):
            Number of lines in the log that are not JSON.
    """

    name: str
    path: Path
    series: dict[str, Series] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    max_steps: int | None = None
    last_time: float | None = None
    unreadable: int = 0

    @property
    def last_step(self) -> int:
        """The last logged optimizer step; 0 if there is none."""
        return max((series.steps[-1] for series in self.series.values()), default=0)

    @property
    def finished(self) -> bool:
        """Whether training ended normally, which may be before `max_steps`."""
        last_row = self.series.get("train_runtime", Series([-1], []))  # TRL logs this at the end
        return last_row.steps[-1] == self.last_step or (
            self.max_steps is not None and self.last_step >= self.max_steps
        )


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """
    The runs in folders: a run's own folder, a folder of runs, or a folder of such folders (`seed1/grpo`).

    Raises `ValueError` if a folder has no run, or a file of a run cannot be read.
    """
    folders = {}
    for given in paths:
        found = _folders(Path(given))
        if not found:
            kind = "has no run" if Path(given).is_dir() else "is not a folder"
            raise ValueError(f"{str(given)!r} {kind}: looked for {LOOKED_FOR} in it and in two levels of subfolders")
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
    inside.sort(key=lambda folder: (arms.get(folder.name, len(arms)), _natural(folder)))  # arms in the given order
    return [run for folder in inside for run in _folders(folder, depth - 1)]


def _natural(folder: Path) -> list:
    """A key that puts `seed2` before `seed10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", folder.name)]


def _names(folders: list[Path]) -> list[str]:
    """The last parts of the paths, as many as are needed to tell them apart."""
    lengths = [1] * len(folders)
    while True:
        names = ["/".join(folder.parts[-length:]) for folder, length in zip(folders, lengths, strict=True)]
        shared = [names.count(name) > 1 for name in names]
        if not any(shared):
            return names
        lengths = [length + same for length, same in zip(lengths, shared, strict=True)]


def read_run(path: str | Path, name: str | None = None) -> Run:
    """
    The run in a folder: `metrics.jsonl`, or else TRL's `trainer_state.json` there or in the newest checkpoint.

    Raises `ValueError` if there is neither, or a file cannot be read.
    """
    path = Path(path)
    log, state_path = path / METRICS, state_file(path)
    state = {} if state_path is None else read_json(state_path)
    head, unreadable = {}, 0
    if log.is_file():
        rows, head, unreadable = _lines(log)
    elif state_path is not None:
        rows = state.get("log_history", [])
    else:
        raise ValueError(f"{str(path)!r} is not a run: looked for {LOOKED_FOR} in it")
    settings, series = head.get("settings", {}), _by_key(_by_step(rows))
    times = [row["time"] for row in rows if "time" in row]
    max_steps = (state.get("max_steps"), settings.get("max_steps"))
    return Run(
        name=path.resolve().name if name is None else name,
        path=path,
        series=series,
        settings=settings,
        versions=head.get("versions", {}),
        scores=_scores(path),
        max_steps=next((steps for steps in max_steps if isinstance(steps, int) and steps > 0), None),
        last_time=times[-1] if times else (log if log.is_file() else state_path).stat().st_mtime,
        unreadable=unreadable,
    )


def state_file(path: Path) -> Path | None:
    """The file of TRL's state in a folder, or in its newest checkpoint; `None` if there is none."""
    if (path / STATE).is_file():
        return path / STATE
    checkpoints = [file for file in path.glob(f"checkpoint-*/{STATE}") if file.parent.name[11:].isdigit()]
    return max(checkpoints, key=lambda file: int(file.parent.name[11:]), default=None)


def read_json(path: Path) -> dict:
    """A JSON object in a file; raises `ValueError` with one line for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} is not a JSON object")
    return content


def _lines(path: Path) -> tuple[list[dict], dict, int]:
    """Rows, head and number of broken lines of a log. The last line of a killed run may be cut off."""
    rows, head, unreadable = [], {}, 0
    for line in filter(str.strip, path.read_text(encoding="utf-8", errors="replace").split("\n")):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            unreadable += 1
            continue
        if "run" in row:
            head = row["run"]
            rows += [{"step": head["step"]}] if "step" in head else []  # earlier logs of later steps do not count
        elif "step" in row:
            rows.append(row)
    return rows, head, unreadable


def _by_step(rows: Iterable[Mapping]) -> Iterator[tuple[int, dict]]:
    """Merge the rows of each step; a key's last value counts. A resumed step drops earlier rows of later steps."""
    merged: dict[int, dict] = {}
    for row in rows:
        step = row["step"]
        if merged and step < next(reversed(merged)):
            merged = {earlier: values for earlier, values in merged.items() if earlier <= step}
        merged.setdefault(step, {}).update(row)
    return iter(merged.items())


def _by_key(rows: Iterable[tuple[int, dict]]) -> dict[str, Series]:
    series: dict[str, Series] = {}
    for step, row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "step":
                steps, values = series.setdefault(key, Series([], []))
                steps.append(step)
                values.append(float(value))
    return series


def _scores(path: Path) -> dict[str, dict[str, float]]:
    file = path.resolve().parent / SCORES
    arm = read_json(file).get(path.resolve().name, {}) if file.is_file() else {}
    return {when: arm[when] for when in ("before", "after") if arm.get(when)}
