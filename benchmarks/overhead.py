"""
What the package adds to an optimizer step of TRL: processor time as a ratio, operations and host syncs as counts.

    python benchmarks/overhead.py [--quick] [--out overhead.json]

Each arm takes turns with TRL's own trainer on the same batch. The arm "TRL again" is a second trainer of TRL's: if it
does not take the same time, the ratios mean nothing and the report says so. The seconds of the package's own code,
clocked inside of its steps, are less noisy; the counts do not depend on the clock.
"""

import gc
import statistics

import torch
from shared import (
    GPU,
    LARGE,
    SMALL,
    Clocked,
    Size,
    Step,
    added,
    estimate,
    finish,
    floor,
    gemm_rate,
    given,
    is_valid,
    machine,
    ratios,
    seconds,
)


SIZE = LARGE if GPU else Size()
ARMS = {
    "TRL again": {},
    "no rule": {"entropy_measures": "basic"},
    "confident_sign": {"entropy_control": "confident_sign"},
    "high_entropy, lagged": {"token_weights": {"high_entropy": {}}, "pooling": "lagged"},
    "high_entropy, exact": {"token_weights": {"high_entropy": {}}},
    "entropy_measures=full": {"entropy_measures": "full", "temperature": 0.9},
}
# Those whose ratio is to be known to half a percent, and by how much longer they take turns for it
LONGER = {"TRL again": 8, "no rule": 8}


def main() -> None:
    flags = given(__doc__)
    torch.set_num_threads(1)
    rounds, budget = (6, 2) if flags.quick else (60, 16)
    plain, small = Step(SIZE, lengths(SIZE)), Step(SMALL, lengths(SMALL))
    report = {"machine": machine(), "size": SIZE._asdict(), "arms": {}}
    base = {**small.counts(), "rollout": small.sampled}
    for name, settings in list(ARMS.items())[: 3 if flags.quick else None]:
        arm = Step(SMALL, lengths(SMALL), **settings)
        seen = {**arm.counts(), "rollout": arm.sampled}
        arm = Step(SIZE, lengths(SIZE), kind=Clocked if settings else None, **settings)
        longer = 1 if flags.quick else LONGER.get(name, 1)
        report["arms"][name] = {
            "ratio": estimate(ratios(plain, {name: arm}, longer * rounds, longer * budget)[name]),
            "added": {part: added(seen[part], base[part]) for part in base},
        }
        if settings:
            report["arms"][name]["own seconds"] = statistics.median(arm.trainer.own)
        del arm
        gc.collect()
    report["valid"] = is_valid(report["arms"]["TRL again"]["ratio"])
    report["TRL"] = {"counts": base, "seconds": statistics.median(seconds(plain) for _ in range(5))}
    positions = sum(batch["prompt_ids"].numel() + batch["completion_ids"].numel() for batch in plain.batches)
    scored = sum(lengths(SIZE)) if GPU else positions  # on a CPU TRL's LM head takes them all
    report["TRL"]["floor"] = floor(plain.trainer.model, positions, scored) / gemm_rate()
    report["goal"] = {"ratio": 1.01 if GPU else 1.02, "operations": 60, "syncs": 0}
    finish(report, flags.out)


def lengths(size: Size) -> list[int]:
    return [size.length] * (size.rows * size.micro_batches)


if __name__ == "__main__":
    main()
