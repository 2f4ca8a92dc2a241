"""The runs of the study: each trained once, and kept."""

import gc
import multiprocessing
import platform
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trl_entropy import __version__
from trl_entropy.lab.processes import start_worker

from .arms import Arm, flags
from .store import every, load, write


PROBLEMS = Path("out") / "study"
PACKAGES = ("torch", "transformers", "trl")
# What is kept of the log; what starts with `knobs/` only if it moved
SERIES = (
    "reward",
    "entropy",
    "completions/mean_length",
    "frac_reward_zero_std",
    "clip_ratio/high_mean",
    "clip_ratio/low_mean",
    "groups/all_correct",
    "groups/all_wrong",
    "staleness/updates",
    "entropy_change/observed",
    "entropy_change/predicted",
    "entropy_change/predicted_positive",
    "entropy_change/predicted_negative",
    "rollout/groups_sampled",
)
SCORES = (
    "avg@8",
    "pass@8",
    "maj@8",
    "distinct_answers",
    "distinct_1",
    "distinct_2",
    "self_bleu",
    "response_entropy",
    "prompt_entropy",
    "ece_logprob",
    "brier_logprob",
    "ece_vote",
)
DIGITS = 5


class Run(NamedTuple):
    """One run: an arm with a seed."""

    name: str
    arm: Arm
    seed: int

    @property
    def flags(self) -> list[str]:
        return flags(self.arm, self.seed, str(PROBLEMS))

    @property
    def is_kept(self) -> bool:
        kept = load(self.name, self.seed)
        return kept is not None and (kept["flags"], kept["window"]) == (self.flags, self.arm.window)


def train_all(runs: Iterable[Run], jobs: int, minutes: float | None = None) -> None:
    """
    Train the runs that are not kept yet, or with other flags, `jobs` at a time; those that have not ended after
    `minutes` are given up.

    Raises `ValueError` for wrong flags before any run starts, and `RuntimeError` if runs fail, after the others.
    """
    start = time.monotonic()
    from trl_entropy.commands.grpo import prepare

    runs = list(runs)
    _take_over(run for run in runs if not run.is_kept)
    missing = [run for run in runs if not run.is_kept]
    for run in {run.name: run for run in missing}.values():
        prepare([*run.flags, "--output_dir", str(PROBLEMS / "unused")])
    failures = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(jobs, context, start_worker) as executor,
    ):
        bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(missing))
        futures = {executor.submit(_keep, run): run for run in missing}
        left = None if minutes is None else start + 60 * minutes - time.monotonic()
        try:
            for future in as_completed(futures, left):
                run = futures[future]
                progress.advance(bar)
                if (error := future.exception()) is not None:
                    failures[run] = error
                    console.print(f"{run.name}, seed {run.seed}: {error}")
                elif not console.is_terminal:
                    console.print(f"{run.name}, seed {run.seed}: {future.result():.0f} s")
        except TimeoutError:
            for worker in multiprocessing.active_children():
                worker.terminate()  # the executor gives up all that is left
            console.print(
                f"{minutes:g} minutes are over: {sum(run.is_kept for run in runs)} of {len(runs)} runs are kept"
            )
    if failures:
        lines = (f"{run.name}-{run.seed}: {''.join(traceback.format_exception(e))}" for run, e in failures.items())
        raise RuntimeError("\n".join(lines))


def _take_over(missing: Iterable[Run]) -> None:
    """Keep under its name what has been trained with the same flags under another."""
    kept = {(*run["flags"], run["window"]): run for run in every()}
    for run in missing:
        same = kept.get((*run.flags, run.arm.window))
        if same is not None:
            write({**same, "arm": run.name})


def _keep(run: Run) -> float:
    """Train a run and write it; the seconds it took."""
    start = time.perf_counter()
    write(train(run))
    gc.collect()
    return time.perf_counter() - start


def train(run: Run) -> dict:
    """Settings, versions, series, scores and seconds of a run."""
    from transformers import PrinterCallback

    from trl_entropy.commands.grpo import build_trainer, fit, prepare

    given = run.flags
    with tempfile.TemporaryDirectory() as folder:
        job = prepare([*given, "--output_dir", folder, "--disable_tqdm", "true", "--live_view", "false"])
        trainer = build_trainer(job)
        trainer.remove_callback(PrinterCallback)
        before = [_scores(0, job.pass_at_k.evaluate())] if job.pass_at_k is not None and run.arm.before else []
        start = time.process_time()
        fit(job, trainer)
        seconds = time.process_time() - start
    history = trainer.state.log_history
    steps = [row for row in history if "entropy" in row]
    scores = [_scores(row["step"], row) for row in history if "eval_pass@8" in row]
    return {
        "arm": run.name,
        "seed": run.seed,
        "flags": given,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "trl-entropy": __version__,  # which need not be installed
        },
        "seconds": round(seconds, 1),
        "window": run.arm.window,
        "precision": "bfloat16" if job.training.mixed_precision == "bf16" else "float32",
        "series": _series(steps, run.arm.window),
        "scores": before + scores,
    }


def _scores(step: int, row: dict) -> dict:
    kept = {name: row[f"eval_{name}"] for name in SCORES if row.get(f"eval_{name}") is not None}
    return {"step": step, **{name: _short(value) for name, value in kept.items() if value == value}}


def _series(steps: list[dict], window: int) -> dict[str, list]:
    """Means over every `window` steps; `None` where nothing was logged."""
    names = [name for name in SERIES if any(name in row for row in steps)]
    names += [name for name in steps[0] if name.startswith("knobs/") and len({row.get(name) for row in steps}) > 1]
    blocks = [steps[start : start + window] for start in range(0, len(steps), window)]
    return {"step": [block[-1]["step"] for block in blocks]} | {
        name: [_mean([row[name] for row in block if name in row]) for block in blocks] for name in names
    }


def _mean(values: list[float]) -> float | None:
    return _short(fmean(values)) if values else None


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
