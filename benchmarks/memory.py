"""
The memory that an optimizer step takes, each arm in a fresh process: beyond what the policy had taken before.

    python benchmarks/memory.py [--quick] [--out memory.json]

On a CPU the highest resident set of the process, on a GPU the most memory that torch has allocated. The arm "full
logits" keeps the log-probs of all entries of the vocabulary, as a loss without TRL's LM head does.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path


PLUGIN = {"entropy_control": "confident_sign"}
ARMS = {"full logits": None, "TRL": {}, "package": PLUGIN, "package, small tiles": PLUGIN}
# Of TRL's
GOALS = {"CPU": {"package": 1.01, "package, small tiles": 0.45}, "GPU": {"package": 1.01}}


def measured(name: str, quick: bool) -> dict:
    """What this process takes for a step of an arm."""
    import psutil
    import torch
    from shared import GPU, LARGE, Size, Step, machine, seconds

    from trl_entropy import _seam

    torch.set_num_threads(1)
    size = Size(vocabulary=32000 if quick else 151936, rows=4, micro_batches=1, length=256)
    size = LARGE._replace(micro_batches=1) if GPU else size
    step = Step(size, [size.length] * size.rows, **(ARMS[name] or {}))
    if name.endswith("small tiles"):
        _seam.use_small_tiles()
    call = step if ARMS[name] is not None else _full_logits(step)
    before = torch.cuda.memory_allocated() if GPU else psutil.Process().memory_info().rss
    taken = seconds(call)
    unit = 1 if sys.platform == "darwin" else 1024
    most = torch.cuda.max_memory_allocated() if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"bytes": most - before, "seconds": taken, "size": size._asdict(), "machine": machine()}


def _full_logits(step):
    import torch

    model, batch = step.trainer.model, step.batches[0]

    def call() -> None:
        model.zero_grad()
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
    parser.add_argument("--arm", choices=ARMS, help="only this arm, in this process")
    flags = parser.parse_args()
    if flags.arm:
        print(json.dumps(measured(flags.arm, flags.quick)))
        return
    # This process imports no torch: the peak of a process is at least that of the one that started it
    arms = {}
    for name in ("TRL", "package, small tiles") if flags.quick else ARMS:
        command = [sys.executable, __file__, "--arm", name] + ["--quick"] * flags.quick
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        arms[name] = json.loads(done.stdout.splitlines()[-1])
    report = {"machine": arms["TRL"]["machine"], "size": arms["TRL"]["size"]}
    report["arms"] = {
        name: {
            "bytes": arm["bytes"],
            "ratio": arm["bytes"] / arms["TRL"]["bytes"],
            "seconds": arm["seconds"],
        }
        for name, arm in arms.items()
    }
    report["goals"] = GOALS["CPU" if report["machine"]["device"] == "CPU" else "GPU"]
    text = json.dumps(report, indent=2)
    print(text) if flags.out is None else flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
