"""
How the time that the package adds to an optimizer step grows: with tokens, vocabulary, size of the groups and ranks.

    python benchmarks/growth.py [--quick] [--out growth.json]

The package's own code is clocked inside of real steps, with the controller of `confident_sign`, a rule with
statistics over the step (`high_entropy`, lagged) and the basic measures. A slope is that of a straight line through
the points, both axes logarithmic: 1 grows as the tokens do, 0 not at all. Ranks are processes on the cores there are.
"""

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from shared import DEVICE, DTYPES, Clocked, Size, Step, finish, flags_of, machine


SETTINGS = {
    "entropy_control": "confident_sign",
    "token_weights": {"high_entropy": {}},
    "pooling": "lagged",
}
TINY = Size(100, 16, layers=1, rows=2, micro_batches=1, group=2, device=DEVICE, dtype=DTYPES[DEVICE])
AXES = {
    "length": (128, 256, 512, 1024, 2048, 4096, *([8192, 16384] if DEVICE == "cuda" else [])),
    "vocabulary": (1000, 32000, 151936),
    "group": (4, 8, 16, 32, 64),
    "ranks": (1, 2, 4),
}
# What a slope may be, and how far above it a fit of noisy points may lie
GOALS = {"length": 1.0, "vocabulary": 0.0, "group": 0.0, "ranks": 0.0}
TOLERANCE = 0.1


def size_at(axis: str, value: int) -> Size:
    """The size of a point: the tokens are the same for all vocabularies, groups and ranks."""
    if axis == "vocabulary":
        return TINY._replace(vocabulary=value, length=128)
    if axis == "group":
        return TINY._replace(group=value, rows=64, length=64)
    return TINY._replace(length=value if axis == "length" else 512)


def measured(size: Size, repeats: int) -> dict[str, float]:
    """Median seconds that the package adds to a step, and the bytes of its reductions over ranks."""
    step = Step(size, [size.length] * size.rows, kind=Clocked, **SETTINGS)
    for _ in range(repeats + 3):
        step.trainer.sent = 0
        step()
    return {"seconds": statistics.median(step.trainer.own[3:]), "bytes": step.trainer.sent}


def over_ranks(ranks: int, repeats: int) -> dict[str, float]:
    """The same for each of several ranks; the slowest."""
    if ranks == 1:
        return measured(size_at("ranks", 1), repeats)
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_port", port]
        env = {**os.environ, "RANK_REPORTS": folder, "RANK_REPEATS": str(repeats), "OMP_NUM_THREADS": "1"}
        subprocess.run([*launch, __file__], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reports = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    return {name: max(report[name] for report in reports) for name in reports[0]}


def rank_of_many() -> None:
    report = measured(size_at("ranks", 1), int(os.environ["RANK_REPEATS"]))
    Path(os.environ["RANK_REPORTS"], f"{os.environ['RANK']}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


def slope(points: dict[int, float]) -> float:
    """The slope of the straight line through the points, both axes logarithmic."""
    return statistics.linear_regression([math.log(x) for x in points], [math.log(y) for y in points.values()]).slope


def main() -> None:
    if "RANK_REPORTS" in os.environ:
        torch.set_num_threads(1)
        return rank_of_many()
    flags = flags_of(__doc__).parse_args()
    torch.set_num_threads(1)
    repeats, report = 5 if flags.quick else 7, {"machine": machine(), "tolerance": TOLERANCE, "axes": {}}
    for axis, values in AXES.items():
        if axis == "ranks" and DEVICE == "cuda":
            values = [value for value in values if value <= torch.cuda.device_count()]
        values = values[:5:2] if flags.quick else values
        if len(values) < 2 or axis in ("vocabulary", "ranks") and flags.quick:
            continue
        points = {
            value: over_ranks(value, repeats) if axis == "ranks" else measured(size_at(axis, value), repeats)
            for value in values
        }
        report["axes"][axis] = {
            "points": points,
            "slope": slope({value: point["seconds"] for value, point in points.items()}),
            "goal": GOALS[axis],
        }
    return finish(report, flags.out)


if __name__ == "__main__":
    main()
