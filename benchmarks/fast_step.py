"""
What an optimizer step costs with `trim_padding`, `sort_by_length`, `skip_zero_advantage`, as a share of TRL's own.

    python benchmarks/fast_step.py [--quick] [--out fast_step.json]

One rollout with completions of lognormal lengths, of whose groups none, half or three quarters have no advantage.
Each arm takes turns with TRL's own trainer on the same rows; making the micro-batches anew is part of its time. The
rows that are left out are measured all the same: by a forward pass or, at the first of the two updates with
`off_policy_updates=2`, from the log-probs that TRL takes anyway. A time is that of all updates. Last the LM head of
TRL on a CPU, on its own tiles and on small ones.
"""

import gc
import sys

import torch
from shared import (
    LARGE,
    Budget,
    Size,
    Step,
    drawn_lengths,
    estimate,
    finish,
    flags_of,
    given,
    is_valid,
    keep,
    machine,
    policy,
    ratios,
)
from trl.trainer import utils

from trl_entropy._seam.head import SMALL
from trl_entropy._seam.trimming import compacted


ON_CPU, ON_GPU = (size._replace(rows=4, micro_batches=8) for size in (Size(hidden=128, layers=2, length=256), LARGE))
FAST = {"fast_step": True}
OFF_POLICY = "fast_step, off_policy_updates=2"
# Settings and updates of an arm
WAYS = {
    "trim": ({"trim_padding": True}, 1),
    "trim, sort": ({"trim_padding": True, "sort_by_length": True}, 1),
    "fast_step": (FAST, 1),
    OFF_POLICY: (FAST, 2),
}
SHARES = (0.0, 0.5, 0.75)
GOALS = {0.0: 0.60, 0.5: 0.35, 0.75: 0.20}  # with the flag that does most
HEAD = Size(vocabulary=32000, hidden=128, layers=1)


def compare(size: Size, share: float, way: str, rounds: int, budget: float) -> dict:
    """An arm on one rollout: its ratio, and how far its gradient is from TRL's."""
    settings, updates = WAYS[way]
    lengths = drawn_lengths(size) * updates
    # TRL's name for off_policy_updates
    plain = Step(size, lengths, share, plain=True, steps_per_generation=updates * size.micro_batches)
    theirs, rows = plain.gradient(), plain.batches
    arm = Step(size, lengths, share, off_policy_updates=updates, **settings)
    how = arm.trainer.seam.trimming

    def steps() -> None:
        for update in range(updates):
            compacted(rows, how)
            arm.trainer.seam.updates = update
            arm()

    def steps_of_trl() -> None:
        for _ in range(updates):
            plain()

    ours = arm.gradient()
    difference = ((ours - theirs).norm() / theirs.norm()).item()
    del ours, theirs
    return {
        "ratio": estimate(ratios(steps_of_trl, {way: steps}, rounds, budget, size.device)[way]),
        "gradient": difference,
        "positions": sum(b["prompt_ids"].numel() + b["completion_ids"].numel() for b in arm.batches)
        / sum(b["prompt_ids"].numel() + b["completion_ids"].numel() for b in rows),
    }


def small_tiles(rounds: int, budget: float) -> dict:
    """Seconds of the LM head of TRL and its backward pass on small tiles, over those on its own."""
    model, head = policy(HEAD), sys.modules["trl.kernels.chunked_logprob"]
    utils.add_fused_lm_head(model, 1.0, False, outputs=("log_probs", "entropy"))
    ids, own = torch.randint(HEAD.vocabulary, (4, 128)), (head.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)

    def run() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()

    def on_small_tiles() -> None:
        head.TOKEN_CHUNK_SIZE = utils._CHUNKED_LOGPROB_CHUNK_SIZE = SMALL
        run()
        head.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE = own

    return estimate(ratios(run, {"small": on_small_tiles}, rounds, budget, HEAD.device)["small"])


def main() -> None:
    flags = given(flags_of(__doc__), ON_CPU, ON_GPU)
    size, lengths = flags.size, drawn_lengths(flags.size)
    torch.set_num_threads(1)
    rounds, longest = (3, 1) if flags.quick else (20, 7)
    shares, ways = (SHARES[-1:], ("fast_step", OFF_POLICY)) if flags.quick else (SHARES, tuple(WAYS))
    arms = [(way, share) for way in sorted(ways, key=lambda way: WAYS[way][0] is not FAST) for share in shares]
    budget = Budget(flags.minutes, [2, *(WAYS[way][1] for way, _ in arms)])
    plain, again = Step(size, lengths), Step(size, lengths)
    taken = ratios(plain, {"again": again}, 2 * rounds, min(2 * longest, budget.next()), size.device)
    same = estimate(taken["again"])
    del plain, again
    report = {"machine": machine(size.device), "size": size._asdict(), "longest": max(lengths)}
    report |= {"mean": sum(lengths) / len(lengths), "TRL again": same, "valid": is_valid(same), "left out": []}
    report["arms"] = {str(share): {"goal": GOALS[share], "ways": {}} for share in shares}
    for way, share in arms:
        gc.collect()
        if (allowed := budget.next()) == 0:
            report["left out"].append(f"{way}, {share}")
            continue
        found = {**report["arms"][str(share)]["ways"], way: compare(size, share, way, rounds, min(longest, allowed))}
        report["arms"][str(share)]["ways"] = {name: found[name] for name in WAYS if name in found}
        keep(report, flags.out)
    if size.device == "cpu" and not flags.quick and flags.minutes is None:
        report["small tiles"] = small_tiles(rounds, longest)
    finish(report, flags.out)


if __name__ == "__main__":
    main()
