"""Run recipes side by side, and show their entropy and reward."""

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..commands.cli import HELP, parse_known, refuse
from ..written import add_overwrite, check_output, written
from .processes import start_worker
from .report.runs import METRICS
from .report.statistics import ENDS, ends, smooth


SERIES = ("reward", "entropy")
NUM_SAMPLES = 8
LINES = 10  # of progress per arm, if there is no terminal for a bar


def main(arguments: list[str]) -> None:
    """`trl-entropy compare`."""
    parser = argparse.ArgumentParser(
        prog="trl-entropy compare",
        usage="trl-entropy compare RECIPE [RECIPE ...] [--output_dir FOLDER] [--jobs N] [--threads N] [--overwrite] "
        "[flags of trl-entropy grpo]",
        description=HELP["compare"],
        epilog="Any flag of `trl-entropy grpo` holds for all recipes.",
        allow_abbrev=False,
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="a YAML file for `trl-entropy grpo`")
    parser.add_argument(
        "--output_dir", default="out/compare", help="folder for the arms (one per recipe), the table and the picture"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of arms to run at once")
    parser.add_argument("--threads", type=int, default=1, help="threads per arm")
    add_overwrite(parser)
    try:
        given, flags = parse_known(parser, arguments)
        picture = compare(given.recipes, given.output_dir, flags, given.jobs, given.threads, given.overwrite)
    except (RuntimeError, ValueError) as error:
        refuse("compare", error)
    print(f"picture: {picture}")


def compare(
    recipes: list[str], output_dir: str, flags: list[str], jobs: int, threads: int = 1, overwrite: bool = False
) -> Path:
    """
    Train every recipe, `jobs` at a time, and write `compare.json` and `compare.png` into `output_dir`.

    Args:
        recipes (`list[str]`):
            YAML files for `trl-entropy grpo`; each is an arm with the file's name.
        output_dir (`str`):
            Each arm writes into a subfolder with its name.
        flags (`list[str]`):
            Additional flags for every arm.
        jobs (`int`):
            Arms to run at once.
        threads (`int`, *optional*, defaults to `1`):
            Threads per arm; a small model is fastest with one.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether the two files may replace those of an earlier comparison.

    Returns the path of the picture. Raises `ValueError`, before an arm starts, for a wrong flag or files that may not
    be written, and `RuntimeError`, after all arms have ended, if one fails.
    """
    from ..commands.grpo import prepare

    for name, value in (("jobs", jobs), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    arms = {Path(recipe).stem: recipe for recipe in recipes}
    if len(arms) < len(recipes):
        raise ValueError(f"the recipes must have different file names, got {', '.join(recipes)}")
    table, picture = Path(output_dir) / "compare.json", Path(output_dir) / "compare.png"
    for file in (table, picture):
        check_output(file, overwrite, recipes)
    arguments = {
        name: ["--config", recipe, "--logging_steps", "1", *flags, "--output_dir", os.path.join(output_dir, name)]
        for name, recipe in arms.items()
    }
    for given in arguments.values():
        if prepare(given).launch:  # a wrong flag raises here, before any arm starts
            raise ValueError(f"each recipe is trained in one process: leave out {' '.join(prepare(given).launch)}")
    try:
        results = _run(arguments, jobs, threads)
        with written(table, overwrite) as part:
            part.write_text(json.dumps(results, indent=1))
        Console().print(_table(results))
        with written(picture, overwrite) as part:
            plot(results, part)
    except KeyboardInterrupt as stop:
        logs = [str(log) for name in arms if _has_steps(log := Path(output_dir) / name / METRICS)]
        said = f"stopped; what was logged is in {', '.join(logs)}" if logs else "stopped before a step was logged"
        raise KeyboardInterrupt(said) from stop
    return picture


def _has_steps(log: Path) -> bool:
    """Whether a log has more than its head, the settings of the run."""
    return log.exists() and len(log.read_bytes().splitlines()) > 1


def _run(arguments: dict[str, list[str]], jobs: int, threads: int) -> dict[str, dict]:
    spawn = multiprocessing.get_context("spawn")
    messages = spawn.Queue()

    def train(name: str) -> dict:
        """Train one arm in its own process, so that its end does not end other arms."""
        with ProcessPoolExecutor(1, spawn, _start, (threads, messages)) as worker:
            return worker.submit(_arm, name, arguments[name]).result()

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}  reward {task.fields[reward]:.2f}"),
        TextColumn("entropy {task.fields[entropy]:.2f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=(console := Console(stderr=True))) as progress, ThreadPoolExecutor(jobs) as arms:
        nan = float("nan")
        bars = {name: progress.add_task(name, total=1, reward=nan, entropy=nan) for name in arguments}
        futures = {name: arms.submit(train, name) for name in arguments}
        for name, future in futures.items():
            future.add_done_callback(lambda _, name=name: messages.put((name, None)))
        try:
            going = set(arguments)
            while going:
                name, step = messages.get()
                if step is None:
                    going.discard(name)
                    continue
                progress.update(bars[name], **step)
                if not console.is_terminal and step["completed"] % max(1, step["total"] // LINES) == 0:
                    line = "{} step {completed}/{total} reward {reward:.2f} entropy {entropy:.2f}"
                    console.print(line.format(name, **step))
        except BaseException:  # interrupted
            arms.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    failures = {name: error for name, future in futures.items() if (error := future.exception()) is not None}
    if failures:
        raise RuntimeError("\n".join(f"{name}: {error.__cause__ or error}" for name, error in failures.items()))
    return {name: future.result() for name, future in futures.items()}


def _start(threads: int, messages) -> None:
    start_worker(threads)
    _arm.messages = messages


def _arm(name: str, arguments: list[str]) -> dict:
    return _train_and_score(name, arguments, _arm.messages)


def _train_and_score(name: str, arguments: list[str], messages) -> dict:
    from transformers import PrinterCallback, TrainerCallback

    from ..commands.grpo import build_trainer, fit, prepare
    from .evaluation.callback import held_out_scores

    class Report(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "reward" in logs:
                content = {"completed": state.global_step, "total": state.max_steps}
                messages.put((name, content | {key: float(logs[key]) for key in SERIES}))

    def score() -> dict[str, float]:
        return held_out_scores(
            trainer.model,
            trainer.processing_class,
            job.eval_dataset,
            graders[0],
            num_samples=NUM_SAMPLES,
            max_new_tokens=job.training.max_completion_length,
            temperature=job.training.temperature,
        )

    job = prepare([*arguments, "--disable_tqdm", "true", "--live_view", "false"])  # the arms share the terminal
    trainer = build_trainer(job, callbacks=[Report()])
    trainer.remove_callback(PrinterCallback)
    graders = list(filter(callable, job.reward_funcs))  # not a reward model
    is_scored = job.eval_dataset is not None and graders
    before = score() if is_scored else {}
    fit(job, trainer)
    history = [row for row in trainer.state.log_history if "reward" in row]
    if not history:
        raise ValueError(f"no step was logged: logging_steps={job.training.logging_steps:g} is larger than max_steps")
    target = next((row[key] for row in history for key in row if key.endswith("/target")), None)
    return {
        "steps": [row["step"] for row in history],
        **{key: [row[key] for row in history] for key in SERIES},
        "target": target,
        "before": before,
        "after": score() if is_scored else {},
    }


def _table(results: dict[str, dict]) -> Table:
    first = next(iter(results.values()))
    scores = list(first["before"])
    caption = f"reward and entropy: {ENDS}"
    table = Table(caption=f"{caption}\n{' and '.join(scores)}: held-out problems" if scores else caption)
    for column in ("", *SERIES, "target", *scores):
        table.add_column(column, justify="left" if column == "" else "right", no_wrap=True)
    start = [ends(first[key])[0] for key in SERIES]
    table.add_row("at the start", *_cells([*start, None, *first["before"].values()]), end_section=True)
    for name, result in results.items():
        last = [ends(result[key])[1] for key in SERIES]
        table.add_row(name, *_cells([*last, result["target"], *result["after"].values()]))
    return table


def _cells(values: list[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.2f}" for value in values]


def plot(results: dict[str, dict], path: Path) -> None:
    """Plot entropy and reward over steps, and the scores on held-out problems, of all arms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    held_out = any(result["after"] for result in results.values())
    figure, axes = plt.subplots(1, 2 + held_out, figsize=(9 + 3.5 * held_out, 3.6), layout="constrained")
    for axis, (key, title) in zip(axes, (("entropy", "entropy (nats per token)"), ("reward", "reward")), strict=False):
        for index, (name, result) in enumerate(results.items()):
            color = f"C{index}"
            axis.plot(result["steps"], result[key], color=color, alpha=0.25, linewidth=1)
            axis.plot(result["steps"], smooth(result[key]), color=color, linewidth=2, label=name)
            if key == "entropy" and result["target"] is not None:
                axis.axhline(result["target"], color=color, linestyle="--", linewidth=1, label=f"target of {name}")
        axis.set(xlabel="optimizer step", title=title, ylim=(0, None))
    axes[0].legend(frameon=False)
    if held_out:
        _plot_held_out(axes[2], results)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _plot_held_out(axis, results: dict[str, dict]) -> None:
    bars = {"at the start": next(iter(results.values()))["before"]}
    bars |= {name: result["after"] for name, result in results.items()}
    width = 0.8 / len(bars)
    for index, (name, scores) in enumerate(bars.items()):
        color = "lightgray" if index == 0 else f"C{index - 1}"
        places = [group + (index - (len(bars) - 1) / 2) * width for group in range(len(scores))]
        columns = axis.bar(places, scores.values(), width, color=color, label=name)
        axis.bar_label(columns, fmt="%.2f", fontsize=8)
    axis.set(title="held-out problems (grey: at the start)", ylim=(0, 1.1), axisbelow=True)
    axis.set_xticks(range(len(scores)), list(scores))
