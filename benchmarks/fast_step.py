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
from shared import GPU, LARGE, Size, Step, estimate, finish, given, is_valid, machine, policy, ratios
from trl.trainer import utils

from trl_entropy import _seam
from trl_entropy.compact import compacted


SIZE = (LARGE if GPU else Size(hidden=128, layers=2, length=256))._replace(rows=4, micro_batches=8)
MEDIAN, SIGMA = 0.156, 0.8  # of the lognormal; the median as a share of the longest
WAYS = {
    "trim": {"trim_padding": True},
    "trim, sort": {"trim_padding": True, "sort_by_length": True},
    "fast_step": {"fast_step": True},
}
SHARES = (0.0, 0.5, 0.75)
GOALS = {0.0: 0.60, 0.5: 0.35, 0.75: 0.20}  # with the flag that does most
HEAD = Size(vocabulary=32000, hidden=128, layers=1)


def drawn_lengths(size: Size) -> list[int]:
    """Lengths of the completions of an optimizer step, the same for the same size."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(size.rows * size.micro_batches, generator=generator)
    return (MEDIAN * size.length * (SIGMA * normal).exp()).long().clamp(2, size.length).tolist()


def compare(share: float, updates: int, ways: dict[str, dict], rounds: int, budget: float) -> dict:
    """The arms of one rollout: their ratios, and how far their gradient is from TRL's."""
    lengths = drawn_lengths(SIZE) * updates
    # TRL's name for off_policy_updates
    plain = Step(SIZE, lengths, share, plain=True, steps_per_generation=updates * SIZE.micro_batches)
    theirs, rows = plain.gradient(), plain.batches
    found = {}
    for name, settings in ways.items():
        arm = Step(SIZE, lengths, share, off_policy_updates=updates, **settings)
        how = arm.trainer.compaction

        def steps(arm=arm, how=how) -> None:
            for update in range(updates):
                compacted(rows, how)
                arm.trainer._updates = update
                arm()

        def steps_of_trl() -> None:
            for _ in range(updates):
                plain()

        ours = arm.gradient()
        found[name] = {
            "ratio": estimate(ratios(steps_of_trl, {name: steps}, rounds, budget)[name]),
            "gradient": ((ours - theirs).norm() / theirs.norm()).item(),
            "positions": sum(b["prompt_ids"].numel() + b["completion_ids"].numel() for b in arm.batches)
            / sum(b["prompt_ids"].numel() + b["completion_ids"].numel() for b in rows),
        }
        del arm, steps
        gc.collect()
    return found


def small_tiles(rounds: int, budget: float) -> dict:
    """Seconds of the LM head of TRL and its backward pass on small tiles, over those on its own."""
    model, head = policy(HEAD), sys.modules["trl.kernels.chunked_logprob"]
    utils.add_fused_lm_head(model, 1.0, False, outputs=("log_probs", "entropy"))
    ids, own = torch.randint(HEAD.vocabulary, (4, 128)), (head.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)

    def run() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()

    def on_own_tiles() -> None:
        head.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE = own
        run()

    def on_small_tiles() -> None:
        _seam.use_small_tiles()
        run()

    return estimate(ratios(on_own_tiles, {"small tiles": on_small_tiles}, rounds, budget)["small tiles"])


def main() -> None:
    flags = given(__doc__)
    torch.set_num_threads(1)
    rounds, budget = (3, 1) if flags.quick else (20, 7)
    shares, ways = (SHARES[-1:], {"fast_step": WAYS["fast_step"]}) if flags.quick else (SHARES, WAYS)
    lengths = drawn_lengths(SIZE)
    plain, again = Step(SIZE, lengths), Step(SIZE, lengths)
    same = estimate(ratios(plain, {"again": again}, 2 * rounds, 2 * budget)["again"])
    report = {"machine": machine(), "size": SIZE._asdict(), "longest": max(lengths)}
    report |= {"mean": sum(lengths) / len(lengths), "TRL again": same, "valid": is_valid(same), "arms": {}}
    for share in shares:
        found = compare(share, 1, ways, rounds, budget)
        off_policy = compare(share, 2, {"fast_step": WAYS["fast_step"]}, rounds, budget)
        found["fast_step, off_policy_updates=2"] = off_policy["fast_step"]
        report["arms"][str(share)] = {"goal": GOALS[share], "ways": found}
    if not GPU and not flags.quick:
        report["small tiles"] = small_tiles(rounds, budget)
    finish(report, flags.out)


if __name__ == "__main__":
    main()
