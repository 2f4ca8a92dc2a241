"""
The memory that an optimizer step takes, each arm in a fresh process: beyond what the policy had taken before.

    python benchmarks/memory.py [--quick] [--out memory.json]

On a CPU the highest resident set of the process, on a GPU the most memory that torch has allocated. The arm "full
logits" keeps the log-probs of all entries of the vocabulary, as a loss without TRL's LM head does. An arm that fails
is in the report with the reason, and the exit code is 1.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from trl_entropy.checks import minutes


PLUGIN = {"entropy_control": "confident_sign"}
MEASURES = {"entropy_measures": "full", "temperature": 0.9}
FAST = {"fast_step": True}
ARMS = {
    "TRL": {},
    "full logits": {},
    "TRL, entropy bonus": {"entropy_coef": 0.01},
    "package": PLUGIN,
    "package, small tiles": PLUGIN,
    "measures": MEASURES,
    "entropy bonus": {"entropy_coef": 0.01},
    "advantage bonus": {"advantage_bonuses": {"entropy_advantage": {}}},
    "fast step": FAST,
    "measures, fast step": {**MEASURES, **FAST},
}
# Those of `make bench`
USUAL = ("TRL", "full logits", "package", "package, small tiles")
# Of TRL's
GOALS = {"CPU": {"package": 1.01, "package, small tiles": 0.45}, "GPU": {"package": 1.01}}


def measured(flags: argparse.Namespace) -> dict:
    """What this process takes for a step of an arm."""
    import psutil
    import torch
    from shared import Step, drawn_lengths, machine, seconds

    from trl_entropy._seam import patched_head

    torch.set_num_threads(1)
    name, size = flags.arm, flags.size
    on_gpu = size.device == "cuda"
    lengths = drawn_lengths(size) if flags.drawn else [size.length] * size.rows * size.micro_batches
    plain = name in ("full logits", "TRL", "TRL, entropy bonus")
    step = Step(size, lengths, flags.no_advantage, plain=plain, **ARMS[name])
    tiles = patched_head(step.trainer.accelerator.device, small_tiles=name.endswith("small tiles"))
    call = _full_logits(step) if name == "full logits" else step
    before = torch.cuda.memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()  # sampling has taken some too
    with tiles:
        taken = [seconds(call, size.device) for _ in range(flags.repeats)]
    unit = 1 if sys.platform == "darwin" else 1024
    most = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # The first step also starts kernels and gets memory
    return {
        "bytes": most - before,
        "before": before,
        "seconds": statistics.median(taken[1:] or taken),
        "size": size._asdict(),
        "machine": machine(size.device),
    }


def _full_logits(step):
    import torch

    model = step.trainer.model

    def call() -> None:
        model.zero_grad()
        for batch in step.batches:
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            length = batch["completion_ids"].shape[1]
            logits = model(input_ids=ids, use_cache=False).logits[:, -length - 1 : -1].float()
            logps = logits.log_softmax(-1)
            with torch.no_grad():
                -(logps.exp() * logps).sum(-1)
            chosen = logps.gather(-1, batch["completion_ids"].unsqueeze(-1)).squeeze(-1)
            (-chosen * batch["advantages"].unsqueeze(1)).mean().backward()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller vocabulary, two arms")
    parser.add_argument("--out", type=Path, help="a JSON file for the report, which is printed else")
    parser.add_argument(
        "--arms", choices=ARMS, nargs="+", help="these, the first of which the others are compared with"
    )
    parser.add_argument("--arm", choices=ARMS, help="only this one, in this process")
    parser.add_argument("--drawn", action="store_true", help="completions of lognormal lengths, not of one length")
    parser.add_argument("--no_advantage", type=float, default=0.0, help="share of the groups without an advantage")
    parser.add_argument("--repeats", type=int, default=1, help="steps; of several the first is not clocked")
    # The flags of a size are for the process of an arm, which reads them by shared.given: this one imports no torch,
    # since the peak of a process is at least that of the one that started it
    flags = parser.parse_known_args()[0]
    if flags.arm:
        from shared import LARGE, Size, given

        small = Size(32000 if flags.quick else 151936, rows=4, micro_batches=1, length=256)
        print(json.dumps(measured(given(parser, small, LARGE._replace(micro_batches=1)))))
        return
    sys.exit(compare(parser))


def compare(parser: argparse.ArgumentParser) -> str | None:
    """All arms, one after another; which of them failed."""
    parser.add_argument("--minutes", type=minutes, help="after which no arm is begun, and the last is ended")
    flags = parser.parse_known_args()[0]
    start = time.monotonic()
    names = flags.arms or (("TRL", "package, small tiles") if flags.quick else USUAL)
    report = {"arms": {}, "failed": {}, "left out": []}
    for name in names:
        command = [sys.executable, __file__, *sys.argv[1:], "--arm", name]
        left = None if flags.minutes is None else max(0.0, start + 60 * flags.minutes - time.monotonic())
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            report["left out"].append(name)
            continue
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            report["failed"][name] = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            continue
        arm = json.loads(done.stdout.splitlines()[-1])
        report |= {"machine": arm.pop("machine"), "size": arm.pop("size")}
        report["goals"] = GOALS["CPU" if report["size"]["device"] == "cpu" else "GPU"]
        report["arms"][name] = arm
        if names[0] in report["arms"]:
            arm["ratio"] = arm["bytes"] / report["arms"][names[0]]["bytes"]
        _keep(report, flags.out)
    _keep(report, flags.out)
    if flags.out is None:
        print(json.dumps(report, indent=2))
    if not report["arms"] and not report["failed"]:
        return f"no arm has ended within --minutes {flags.minutes:g}"
    return "; ".join(f"{name}: {reason}" for name, reason in report["failed"].items()) or None


def _keep(report: dict, out: Path | None) -> None:
    if out is not None:
        part = out.with_suffix(".part")
        part.write_text(json.dumps(report, indent=2) + "\n")
        part.replace(out)


if __name__ == "__main__":
    main()
