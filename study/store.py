"""The runs on disk: a file for every section of the study, a line for every run, by arm and seed."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import language, testbed
from .arms import GRIDS, LAWS_ON_KNOBS, SECTIONS, TRIALS


FOLDER = Path(__file__).parent / "runs"
ARMS = {
    **SECTIONS,
    "laws": LAWS_ON_KNOBS,
    "authority": testbed.AUTHORITY,
    "tuning": TRIALS,
    "methods": [f"{rate}_{method}" for method in GRIDS for rate in ("tuned", "shared")],
    "language_model": language.CPU_ARMS,
    "language_model_gpu": language.GPU_ARMS,
}
SECTION = {arm: section for section, arms in ARMS.items() for arm in arms}
Runs = dict[tuple[str, int], dict]  # by arm and seed
_READ: dict[Path, tuple[tuple[int, ...], Runs]] = {}


def load(arm: str, seed: int) -> dict | None:
    """What is kept of a run, for all who ask: not to be changed; `None` if it was not run."""
    return _read(_path(arm)).get((arm, seed))


def every() -> list[dict]:
    """All runs that are kept."""
    return [run for path in sorted(FOLDER.glob("*.jsonl")) for run in _read(path).values()]


def write(run: dict) -> None:
    """Keep a run in place of an older one; a process that is killed meanwhile, or writes too, loses no other."""
    path = _path(run["arm"])
    FOLDER.mkdir(exist_ok=True)
    with _alone():
        runs = _parsed(path) if path.is_file() else {}
        runs[run["arm"], run["seed"]] = run
        with (part := path.with_suffix(".part")).open("w") as file:
            file.writelines(json.dumps(runs[key], separators=(",", ":")) + "\n" for key in sorted(runs))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def _path(arm: str) -> Path:
    if arm not in SECTION:
        raise ValueError(f"the arm {arm!r} is in no section of the study: add it to one of SECTIONS in study/arms.py")
    return FOLDER / f"{SECTION[arm]}.jsonl"


@contextmanager
def _alone() -> Iterator[None]:
    """The one process that writes; the system ends its turn with it. A lock on a file would go when it is replaced."""
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _read(path: Path) -> Runs:
    """The runs of a file, parsed again only if it has changed."""
    if not path.is_file():
        return {}
    at = path.stat()
    stamp = (at.st_ino, at.st_mtime_ns, at.st_size)
    if path not in _READ or _READ[path][0] != stamp:
        _READ[path] = stamp, _parsed(path)
    return _READ[path][1]


def _parsed(path: Path) -> Runs:
    runs = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            run = json.loads(line)
            runs[run["arm"], run["seed"]] = run
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number}, is not a run, which is JSON with an arm and a seed ({error!r}): "
                "delete the line, and that run is trained again"
            ) from error
    return runs
