"""Runs made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

from trl_entropy.lab.report.runs import Run, Series
from trl_entropy.lab.report.statistics import Arm


def made(name: str = "a", path: str | None = None, steps: list[int] | None = None, **fields) -> Run:
    """A run whose metrics are given as lists under `series`, logged at every step from 1 on."""
    series = {
        key: Series(steps or list(range(1, len(values) + 1)), values) for key, values in fields.pop("series").items()
    }
    return Run(name=name, path=Path(path or name), series=series, **fields)


def alone(**fields) -> list[Arm]:
    """One arm of one run."""
    return [Arm("a", [made(**fields)])]


def line(start: float, end: float, number: int = 40) -> list[float]:
    """Values on a straight line."""
    return [start + (end - start) * k / (number - 1) for k in range(number)]


def wiggly(levels: Sequence[float], number: int = 20) -> list[float]:
    """As many values around each level, 0.02 up and down."""
    return [level + 0.02 * (-1) ** k for level in levels for k in range(number)]


def write_log(folder: Path, *rows: dict, run: dict | None = None, end: str = "") -> Path:
    """A folder with a `metrics.jsonl`; `end` is what stands after the last whole line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in ([] if run is None else [{"run": run}]) + list(rows)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + end)
    return folder


def write_state(folder: Path, *rows: dict, **state) -> Path:
    """A folder with a `trainer_state.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": list(rows), **state}))
    return folder


def rows(number: int, start: int = 1, **values) -> list[dict]:
    """Rows of steps in a row; a value may be a function of the step."""
    each = range(start, start + number)
    return [{"step": k, **{key: v(k) if callable(v) else v for key, v in values.items()}} for k in each]


STEPS = 60


def everything(scale: float = 1.0) -> dict[str, list[float]]:
    """Metrics of a run of [`STEPS`] steps that has logged all that there is."""
    falling = [scale * (0.2 + 0.6 * 0.95**k) for k in range(STEPS)]
    rising = [0.1 + 0.01 * k for k in range(STEPS)]
    small = [0.001 * (-1) ** k - 0.002 for k in range(STEPS)]
    series = dict.fromkeys(("entropy", *(f"entropy/decile_{number}" for number in range(1, 11))), falling)
    series |= {f"entropy/{sign}_advantage": falling for sign in ("positive", "negative")}
    series |= {
        f"entropy/{kind}_{sign}": falling for kind in ("likely", "unlikely") for sign in ("positive", "negative")
    }
    series |= {f"entropy/{kind}": falling for kind in ("correct", "incorrect")}
    series |= {
        f"entropy_change/{key}": small for key in ("predicted", "predicted_positive", "predicted_negative", "observed")
    }
    series |= {f"clip_ratio/{side}_mean": rising for side in ("low", "high", "region")}
    series |= {
        "reward": rising,
        "frac_reward_zero_std": rising,
        "groups/all_correct": rising,
        "groups/all_wrong": rising,
    }
    series |= {"knobs/entropy_coef": rising, "knobs/epsilon_high": [0.2] * STEPS, "eval_pass@8": rising}
    return series | {"controllers/hold/target": [0.3] * STEPS, "time": [1e9 + 2 * k for k in range(STEPS)]}


SCORES = {"before": {"avg@8": 0.3, "pass@8": 0.9}, "after": {"avg@8": 0.5, "pass@8": 0.7}}
SETTINGS = {"beta": 0.0, "seed": 1, "controllers": {"hold": {"law": "pi", "knob": "entropy_coef", "target": 0.3}}}


def full(name: str = "a", path: str | None = None, scale: float = 1.0, more: dict | None = None, **fields) -> Run:
    """A run that has left all that there is."""
    given = {
        "scores": SCORES,
        "settings": SETTINGS,
        "max_steps": STEPS,
        "last_time": 1e9,
        "versions": {"trl": "1.16.0"},
    }
    return made(name, path, series=everything(scale) | (more or {}), **{**given, **fields})
