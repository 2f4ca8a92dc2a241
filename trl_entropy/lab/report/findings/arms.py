"""Find differences between arms."""

import math
from collections.abc import Callable, Sequence

from ..runs import Run, Series
from ..statistics import Arm, Estimate, ends, estimate, seed_of
from .finding import MIN_LOGS, NOTE, Finding


Value = Callable[[Run], float | None]


def last(key: str) -> Value:
    """The mean of a metric's last logged steps; `None` for a run with too few."""
    none = Series([], [])
    return lambda run: ends(values)[1] if len(values := run.series.get(key, none).values) >= MIN_LOGS else None


def score(name: str) -> Value:
    """A score on held-out problems after training; `None` for a run without it."""
    return lambda run: run.scores.get("after", {}).get(name)


def of_arm(arm: Arm, value: Value) -> Estimate | None:
    """The mean over the seeds of an arm; `None` if a seed has no value."""
    values = [value(run) for run in arm.runs]
    return None if None in values else estimate(values)


def difference(arm: Arm, other: Arm, value: Value) -> Estimate:
    """The difference between two arms: over the seeds that both have, or between their means."""
    ours, theirs = ({seed_of(run): value(run) for run in each.runs} for each in (arm, other))
    shared = [seed for seed in ours if seed in theirs]
    if len(shared) > 1:
        return estimate([ours[seed] - theirs[seed] for seed in shared])
    return Estimate(of_arm(arm, value).mean - of_arm(other, value).mean, None)


def compared(arms: Sequence[Arm]) -> list[Finding]:
    """Which arm has the most entropy, the most reward and the best held-out scores, and by how much."""
    scores = dict.fromkeys(name for arm in arms for run in arm.runs for name in run.scores.get("after", {}))
    measures = {"entropy": last("entropy"), "reward": last("reward"), **{name: score(name) for name in scores}}
    found = []
    for name, value in measures.items():
        ranked = [arm for arm in arms if of_arm(arm, value) is not None]
        means = {arm.name: of_arm(arm, value).mean for arm in ranked}
        # Values that are not finite come last
        ranked.sort(key=lambda arm: (math.isnan(means[arm.name]), -means[arm.name]))
        if len(ranked) < 2 or math.isnan(means[ranked[0].name]):
            continue
        if (lead := difference(*ranked[:2], value)).mean == 0:
            continue
        first, *others = ranked
        text = f"{first.name} ended with the most {name}: {of_arm(first, value)}" + " nats" * (name == "entropy")
        if lead.half is not None and lead.half >= lead.mean:
            text += f"; {others[0].name} is within the interval of the seeds"
        beside = {name: value} | ({"reward": measures["reward"]} if name == "entropy" else {})
        evidence = "; ".join(_against(first, other, beside) for other in others)
        found.append(
            Finding(text, evidence + ("" if lead.half is not None else " (without an interval: one seed)"), NOTE)
        )
    return found


def _against(arm: Arm, other: Arm, measures: dict[str, Value]) -> str:
    parts = []
    for name, value in measures.items():
        if of_arm(arm, value) is not None and of_arm(other, value) is not None:
            by = difference(arm, other, value)
            parts.append(f"{name} {by.mean:+.3f}" + ("" if by.half is None else f" ± {by.half:.3f}"))
    return f"against {other.name}: {', '.join(parts)}"
