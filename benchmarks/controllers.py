"""
Which law holds the entropy with which knob: the embedded policy, trained once for each law, knob and seed.

    python benchmarks/controllers.py --out controllers.csv [--steps 200] [--jobs 2] [--seeds 1 2 3]
        [--laws none pi integral bang_bang ratchet] [--knobs entropy_coef epsilon_high ...]
    python benchmarks/controllers.py --out controllers.csv --table

Every run is a row of the file, and one that has its row is not repeated. The law "none" is plain GRPO.

A run is `recipes/grpo.yaml` with four optimizer steps for each rollout batch, so that the clip range acts, of 64
completions each: 16 for each of the 16 training problems. Its learning rate is 2.5 times the recipe's, so that plain
GRPO collapses within 200 steps.
"""

import argparse
import csv
import json
import multiprocessing
import os
import tempfile
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import PrinterCallback
from transformers.utils import logging

from trl_entropy.commands.grpo import build_trainer, fit, prepare
from trl_entropy.measures import settling


RECIPE = Path(__file__).parent.parent / "recipes" / "grpo.yaml"
SIZES = {"learning_rate": 5e-4, "num_generations": 16, "per_device_train_batch_size": 64, "off_policy_updates": 4}
TARGET = 0.35  # nats: the policy starts at 0.75, and the recipe's 600 steps take it to less than 0.1
LAST = 10  # rollout batches that the final reward is the mean of


class Setting(NamedTuple):
    """A knob's range, where in it plain GRPO is, the direction if none is declared, and the ratchet's least size."""

    low: float
    start: float
    high: float
    raises_signal: bool | None = None
    least: float = 0.0


KNOBS = {
    "entropy_coef": Setting(0.0, 0.0, 1.0),
    "epsilon_high": Setting(0.2, 0.2, 3.0),
    "epsilon_low": Setting(0.0, 0.2, 0.9),
    "positive_advantage_coef": Setting(0.0, 1.0, 2.0),
    "negative_advantage_coef": Setting(0.0, 1.0, 4.0),
    "token_weights.confident_sign.alpha": Setting(-1.0, 0.0, 1.0),
    # where a run loses entropy, a smaller rate keeps it
    "learning_rate_scale": Setting(0.0, 1.0, 2.0, raises_signal=False),
    "temperature": Setting(0.5, 1.0, 2.0),
    "advantage_bonuses.repo_r.zeta": Setting(-0.05, 0.0, 0.05, least=1e-4),
}
# Rows of a rule that the package does not have, with zeta in [0.001, 1]
UNCLAMPED = "unclamped_repo_r.zeta"

# The law's parameters for a range. They follow from its width alone, so they are tuned to no knob.
# pi: those of recipes/pi.yaml, which hold the entropy with entropy_coef in [0, 1]. integral: ours, an error of 0.1
# nats crosses the range in 100 steps; with pi's 0.02 that would outlast the run. bang_bang: the paper's, for [0, 1].
# ratchet: the paper's; it has no unit.
GAINS = {
    "pi": lambda width: {"kp": 2.0 * width, "ki": 0.02 * width, "anti_windup": True},
    "integral": lambda width: {"rate": 0.1 * width},
    "bang_bang": lambda width: {"step": 0.05 * width},
    "ratchet": lambda width: {"factor": 2.0},
}
# Without a least size no factor leads to 0 or below: there the ratchet's range begins at this share of its upper bound
SMALLEST = 1e-3
NONE = "none"
LAWS = (NONE, *GAINS)


class Arm(NamedTuple):
    """One run."""

    law: str
    knob: str
    seed: int
    steps: int


COLUMNS = (*Arm._fields, "mean", "error", "time", "reward", "last")


def arms(laws: list[str], knobs: list[str], seeds: list[int], steps: int) -> list[Arm]:
    pairs = [pair for law in laws for pair in ([(NONE, NONE)] if law == NONE else product([law], knobs))]
    return [Arm(law, knob, seed, steps) for (law, knob), seed in product(pairs, seeds)]


def controller(law: str, knob: str) -> dict:
    low, start, high, raises_signal, least = KNOBS[knob]
    parameters = GAINS[law](high - low)
    if law == "ratchet" and least:
        parameters["least"] = least
    elif law == "ratchet":
        low = max(low, SMALLEST * high)
    spec = {"law": law, "knob": knob, "low": low, "high": high, "initial": max(low, start), **parameters}
    return spec if raises_signal is None else {**spec, "raises_signal": raises_signal}


def flags(arm: Arm, folder: str) -> list[str]:
    given = ["--config", str(RECIPE), "--disable_tqdm", "true", "--output_dir", folder]
    given += [text for name, value in SIZES.items() for text in (f"--{name}", str(value))]
    given += ["--max_steps", str(arm.steps), "--seed", str(arm.seed)]
    if arm.law == NONE:
        return given
    given += ["--entropy_target", str(TARGET), "--controllers", json.dumps({"hold": controller(arm.law, arm.knob)})]
    section, _, rest = arm.knob.partition(".")
    return given + (["--" + section, json.dumps({rest.partition(".")[0]: {}})] if rest else [])


def train(arm: Arm) -> dict:
    """The row of a run."""
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(flags(arm, folder))
        trainer = build_trainer(job)
        trainer.remove_callback(PrinterCallback)
        fit(job, trainer)
    steps = [row for row in trainer.state.log_history if "entropy" in row]
    rewards = [row["reward"] for row in steps if "reward" in row]
    return {
        **arm._asdict(),
        **settling([row["entropy"] for row in steps], TARGET)._asdict(),
        "reward": fmean(rewards[-LAST:]),
        "last": None if arm.law == NONE else steps[-1][f"knobs/{arm.knob}"],
    }


def start_worker() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # killed: nobody waits for this run any more


def timed(arm: Arm) -> tuple[dict, float]:
    start = time.perf_counter()
    row = train(arm)
    return row, time.perf_counter() - start


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict) -> None:
    new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def sweep(wanted: list[Arm], path: Path, jobs: int) -> None:
    """
    Train what has no row yet, `jobs` runs at a time.

    Raises `ValueError` for a wrong setting before any run starts, `RuntimeError` if one fails, after the others.
    """
    done = {Arm(row["law"], row["knob"], int(row["seed"]), int(row["steps"])) for row in read(path)}
    missing = [arm for arm in wanted if arm not in done]
    for arm in {(arm.law, arm.knob): arm for arm in missing}.values():
        prepare(flags(arm, "out"))
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs have their row", flush=True)
    failures = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, start_worker) as executor:
        futures = {executor.submit(timed, arm): arm for arm in missing}
        for future in as_completed(futures):
            arm = futures[future]
            if (error := future.exception()) is not None:
                failures[arm] = error
                continue
            row, seconds = future.result()
            append(path, row)
            facts = "mean {mean:.3f}, settled at {time}, reward {reward:.2f}".format(**row)
            print(f"{arm}: {facts}, {seconds:.0f} s", flush=True)
    if failures:
        reasons = (f"{arm}: {''.join(traceback.format_exception(error))}" for arm, error in failures.items())
        raise RuntimeError("\n".join(reasons))


def spread(values: list[float], form: str) -> str:
    """The mean and, of several, the smallest and the largest."""
    ends = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{ends}"


def settled(times: list[str]) -> str:
    """Settling times; those that never settled are counted, not averaged."""
    found = [float(value) for value in times if value]
    if not found:
        return "never"
    return spread(found, ".0f") + ("" if len(found) == len(times) else f", {len(found)} of {len(times)}")


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: a line for each knob and law, with the mean over the seeds and their range."""
    order = {name: place for place, name in enumerate((NONE, *KNOBS, UNCLAMPED, *LAWS[1:]))}
    pairs = sorted({(row["knob"], row["law"]) for row in rows}, key=lambda pair: (order[pair[0]], order[pair[1]]))
    lines = [
        "| knob | law | seeds | entropy | error | settled at step | reward | last value |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for knob, law in pairs:
        runs = [row for row in rows if (row["knob"], row["law"]) == (knob, law)]
        values = {key: [float(run[key]) for run in runs if run[key]] for key in COLUMNS[4:]}
        cells = [
            f"`{knob}`" if knob != NONE else "-",
            law,
            str(len(runs)),
            spread(values["mean"], ".2f"),
            spread(values["error"], "+.0%"),
            settled([run["time"] for run in runs]),
            spread(values["reward"], ".2f"),
            spread(values["last"], ".2g") if values["last"] else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--knobs", nargs="+", choices=KNOBS, default=list(KNOBS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print the table of the rows with these --steps")
    given = parser.parse_args()
    if given.table:
        print(table([row for row in read(given.out) if int(row["steps"]) == given.steps]))
    else:
        sweep(arms(given.laws, given.knobs, given.seeds, given.steps), given.out, given.jobs)


if __name__ == "__main__":
    main()
