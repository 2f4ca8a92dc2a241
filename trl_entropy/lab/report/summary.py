"""A table with the numbers of every arm, and how every run ended."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from rich.table import Table

from .control import held
from .runs import Run
from .statistics import ENDS, Arm, ends, estimate


CAPTION = f"Start → end: {ENDS}. ± is the 95% interval over seeds."
QUIET = 120.0  # seconds, ours: a run counts as stopped if its silence is longer than this and much longer than usual
USUAL = 5.0  # ours: "much longer" is this many times its longest pause
MISSING = "–"


def summary(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table, without columns for which no arm has a value."""
    scores = dict.fromkeys(name for arm in arms for run in arm.runs for name in run.scores.get("after", {}))
    columns: dict[str, Callable[[Arm], str]] = {
        "arm": lambda arm: arm.name,
        "runs": lambda arm: str(len(arm.runs)),
        "steps": lambda arm: _range([run.last_step for run in arm.runs]),
        "entropy (nats)": lambda arm: _change(arm, lambda run, end: _ends(run, "entropy", end)),
        "target": _target,
        "settled at step": _settled,
        "reward": lambda arm: _change(arm, lambda run, end: _ends(run, "reward", end)),
    }
    for name in scores:
        columns[name] = lambda arm, name=name: _change(arm, lambda run, end: _score(run, name, end))
    cells = {name: [cell(arm) for arm in arms] for name, cell in columns.items()}
    known = {name: column for name, column in cells.items() if set(column) != {MISSING}}
    return list(known), [list(row) for row in zip(*known.values(), strict=True)]


def table(arms: Sequence[Arm]) -> Table:
    """The transposed table for the console, with a column per arm."""
    head, rows = summary(arms)
    drawn = Table(caption=CAPTION, caption_justify="left")
    for name in ("", *(row[0] for row in rows)):
        drawn.add_column(name, justify="right" if name else "left", overflow="fold")
    for name, *cells in list(zip(head, *rows, strict=True))[1:]:
        drawn.add_row(name, *cells)
    return drawn


def _change(arm: Arm, value: Callable[[Run, bool], float | None]) -> str:
    """The mean at the start, and the mean at the end with its interval."""
    start, end = ([value(run, last) for run in arm.runs] for last in (False, True))
    if None in end:
        return MISSING
    return str(estimate(end)) if None in start else f"{fmean(start):.2f} → {estimate(end)}"


def _ends(run: Run, key: str, last: bool) -> float | None:
    return ends(run.series[key].values)[last] if key in run.series else None


def _score(run: Run, name: str, last: bool) -> float | None:
    return run.scores.get("after" if last else "before", {}).get(name)


def _target(arm: Arm) -> str:
    targets = [aim.target for run in arm.runs for aim in held(run) if aim.signal == "entropy"]
    return f"{fmean(targets):.2f}" if targets else MISSING


def _settled(arm: Arm) -> str:
    aims = [aim for run in arm.runs for aim in held(run) if aim.signal == "entropy" and aim.error is not None]
    steps = [aim.settled for aim in aims if aim.settled is not None]
    if not aims:
        return MISSING
    if not steps:
        return "never"
    return _range(steps) + (f", never ({len(aims) - len(steps)})" if len(steps) < len(aims) else "")


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def ending(run: Run, now: float | None = None) -> str:
    """How a run ended, or that it is still running."""
    step = f"step {run.last_step}" + ("" if run.max_steps is None else f" of {run.max_steps}")
    broken = f"; {run.unreadable} lines of its log cannot be read" if run.unreadable else ""
    if run.finished:
        return f"finished at {step}{broken}"
    if run.last_time is None:
        return f"not finished at {step}{broken}"
    silence = (time.time() if now is None else now) - run.last_time
    times = run.series["time"].values if "time" in run.series else []
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    state = "still running" if silence <= max([QUIET, *(USUAL * pause for pause in pauses)]) else "stopped"
    return f"{state} at {step}, last seen {_ago(silence)} ago{broken}"


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            number = max(0, int(seconds // size))
            return f"{number} {unit}" + ("" if number == 1 else "s")
    raise AssertionError
