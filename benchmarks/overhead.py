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
    LARGE,
    SMALL,
    Budget,
    Clocked,
    Size,
    Step,
    added,
    estimate,
    finish,
    flags_of,
    floor,
    gemm_rate,
    given,
    is_valid,
    keep,
    machine,
    ratios,
    seconds,
)


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
    flags = given(flags_of(__doc__), Size(), LARGE)
    size, small = flags.size, SMALL._replace(device=flags.size.device, dtype=flags.size.dtype)
    torch.set_num_threads(1)
    rounds, longest = (6, 2) if flags.quick else (60, 16)
    arms = dict(list(ARMS.items())[: 3 if flags.quick else None])
    longer = {name: 1 if flags.quick else LONGER.get(name, 1) for name in arms}
    budget = Budget(flags.minutes, longer.values())
    plain, of_small = Step(size, lengths(size)), Step(small, lengths(small))
    base = {**of_small.counts(), "rollout": of_small.sampled}
    plain()
    report = {
        "machine": machine(size.device),
        "size": size._asdict(),
        "syncs": "that CUDA has seen" if size.device == "cuda" else "by operations: only a GPU shows them",
        "goal": {"ratio": 1.01 if size.device == "cuda" else 1.02, "operations": 60, "syncs": 0},
        "TRL": {"counts": base, "seconds": statistics.median(seconds(plain, size.device) for _ in range(5))},
        "arms": {},
        "left out": [],
    }
    positions = sum(batch["prompt_ids"].numel() + batch["completion_ids"].numel() for batch in plain.batches)
    scored = sum(lengths(size)) if size.device == "cuda" else positions  # on a CPU TRL's LM head takes them all
    report["TRL"]["floor"] = floor(plain.trainer.model, positions, scored) / gemm_rate(size.device, size.dtype)
    for name, settings in arms.items():
        if (allowed := budget.next()) == 0:
            report["left out"].append(name)
            continue
        arm = Step(small, lengths(small), **settings)
        seen = {**arm.counts(), "rollout": arm.sampled}
        arm = Step(size, lengths(size), **settings)
        taken = ratios(plain, {name: arm}, longer[name] * rounds, min(longer[name] * longest, allowed), size.device)
        report["arms"][name] = {
            "ratio": estimate(taken[name]),
            "added": {part: added(seen[part], base[part]) for part in base},
        }
        if settings:
            report["arms"][name]["own seconds"] = own_seconds(size, settings)
        else:
            report["valid"] = is_valid(report["arms"][name]["ratio"])
        del arm
        gc.collect()
        keep(report, flags.out)
    finish(report, flags.out)


def own_seconds(size: Size, settings: dict) -> float:
    """Seconds of a step in the package's own code; clocking it takes time, so no ratio is taken of these steps."""
    arm = Step(size, lengths(size), kind=Clocked, **settings)
    for _ in range(8):
        arm()
    return statistics.median(arm.trainer.own[3:])


def lengths(size: Size) -> list[int]:
    return [size.length] * (size.rows * size.micro_batches)


if __name__ == "__main__":
    main()
