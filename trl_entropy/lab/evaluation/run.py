"""Run an evaluation on disk: all processes sample missing responses, and the main process writes the scores."""

import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ... import __version__
from ...data.files import on_main
from ...data.problems import Problem
from ...rewards import REASONS, MathVerifyReward
from ...rewards.verifier import Verifier
from ...written import written_together
from .figures import plot_figures
from .folder import RESULTS, Folder
from .metrics import Score, at_powers_of_two, scores
from .sampling import Policy, SampleId, Sampling, all_ids
from .scoring import graded_lines, samples_of


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """
    A set of problems and the folder for its samples.

    Args:
        name (`str`):
            Its name in the table.
        folder (`Path`):
            Folder for samples and results.
        problems (`list[Problem]`):
            The problems.
        prompts (`list[list[int]]`):
            The tokens of their prompts.
        settings (`Mapping[str, object]`):
            The settings that the samples depend on.
    """

    name: str
    folder: Path
    problems: list[Problem]
    prompts: list[list[int]]
    settings: Mapping[str, object]


def missing_samples(task: Task, sampling: Sampling, state: PartialState) -> list[SampleId]:
    """
    The missing samples of a task, the same on every process; claims the folder.

    Raises `ValueError` if the folder holds samples with other settings.
    """

    def claim_and_read() -> set[SampleId]:
        folder = Folder(task.folder)
        folder.claim(task.settings)
        return {line.id for line in folder.join()}

    known = on_main(state, claim_and_read)
    return [one for one in all_ids(len(task.problems), sampling.num_samples) if one not in known]


def sample_missing(
    task: Task, ids: list[SampleId], policy: Policy, sampling: Sampling, reward: MathVerifyReward, state: PartialState
) -> None:
    """Sample, and write samples as they come; each process has its own problems and its own file."""
    by_length = sorted({one.problem for one in ids}, key=lambda problem: len(task.prompts[problem]))
    own = set(by_length[state.process_index :: state.num_processes])
    ids = [one for one in ids if one.problem in own]
    folder = Folder(task.folder, state.process_index if state.num_processes > 1 else None)
    with _progress(task.name, len(ids), state) as advance:
        for lines in graded_lines(policy, task.prompts, task.problems, ids, sampling, reward):
            folder.append(lines)
            advance(len(lines))
    state.wait_for_everyone()


@contextmanager
def says_what_is_kept(tasks: Sequence[Task]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` with one line that says how many samples are on disk, if there are any."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = {str(task.folder): Folder(task.folder).count() for task in tasks}
        number, folders = sum(kept.values()), ", ".join(kept)
        said = f"stopped; {number} samples are graded, in {folders}: the same command resumes from them"
        raise KeyboardInterrupt(said if number else "stopped before a sample was graded") from stop


def write_results(
    task: Task, sampling: Sampling, verifier: Verifier, settings: Mapping[str, object], resamples: int
) -> dict[str, Score]:
    """
    Compute the scores of all samples of a task, and write `results.json` and the figures; on the main process.

    Only the file has pass@k and maj@k for every k.
    """
    lines = [line for line in Folder(task.folder).join() if line.sample < sampling.num_samples]
    samples = samples_of(lines, sampling.num_samples, verifier)
    table = scores(samples, range(1, sampling.num_samples + 1), resamples=resamples)
    reasons = Counter(line.reason for line in lines)
    unread = len({line.problem for line in lines if line.reason == "unparsable_gold"})
    if unread:
        logger.warning(
            "%s: %d solutions cannot be read, and all samples of their problems count as wrong; `trl-entropy "
            "check-rewards` lists them",
            task.name,
            unread,
        )
    results = {
        "results": {task.name: _as_harness(table)},
        "reasons": {reason: reasons[reason] / len(lines) for reason in REASONS if reasons[reason]},
        "settings": {**settings, **task.settings},
        "versions": versions(),
    }
    shown = at_powers_of_two(table, sampling.num_samples)
    with written_together(task.folder, overwrite=True) as scratch:  # the folder belongs to an evaluation
        (scratch / RESULTS).write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        plot_figures(task.name, samples, shown, scratch)
    return shown


def versions() -> dict[str, str]:
    """The versions of this package and of the packages it computes with."""
    return {
        "trl_entropy": __version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _as_harness(table: Mapping[str, Score]) -> dict[str, float | None]:
    """Scores under the keys of lm-evaluation-harness: the metric, a comma and the answer filter, which is "none"."""
    return {
        f"{name}{kind},none": None if isnan(value) else value
        for name, score in table.items()
        for kind, value in zip(("", "_stderr"), score, strict=True)
    }


@contextmanager
def _progress(name: str, total: int, state: PartialState) -> Iterator[Callable[[int], None]]:
    """A progress bar on the main process, for its own share."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not state.is_main_process) as progress:
        bar = progress.add_task(name, total=total)
        yield lambda number: progress.advance(bar, number)
