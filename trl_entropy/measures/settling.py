"""Measure where the entropy of a run settles, how far from its target, and when."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple


class Settling(NamedTuple):
    """
    Where, how far from its target and when a run's entropy settled.

    Args:
        mean (`float`):
            The mean in nats over the last half of the steps.
        error (`float`):
            The distance of the mean from the target, as a share of the target; positive above it.
        time (`int` or `None`):
            Optimizer steps until the entropy settled; `None` if it had not settled at the end.
    """

    mean: float
    error: float
    time: int | None


def settling(
    entropies: Sequence[float], target: float | Sequence[float], window: int = 10, band: float = 0.1
) -> Settling:
    r"""
    Measure where the entropy of a run settles, how far from its target, and when.

    With \\( K \\) steps, and \\( \bar H_k \\) and \\( \bar H^*_k \\) the means of entropy and target over the `window`
    steps that end with step \\( k \\),

    $$
    \text{mean} = \bar H, \quad \text{error} = \bar H / \bar H^* - 1 \quad
    \text{over the steps } k > \lfloor K/2 \rfloor
    $$

    $$
    \text{time} = \min \{ k \ge \text{window} : |\bar H_s - \bar H^*_s| \le \text{band} \; \bar H^*_s
    \text{ for all } s = k, \dots, K \}
    $$

    The formulas are ours.

    Args:
        entropies (`Sequence[float]`):
            In nats, one per optimizer step, from step 1.
        target (`float` or `Sequence[float]`):
            In nats: one for all steps, or one per step.
        window (`int`, *optional*, defaults to `10`):
            Number of steps to average over.
        band (`float`, *optional*, defaults to `0.1`):
            Largest distance of such a mean from the target, as a share of the target.

    Raises `ValueError` if there are no entropies, if a target is not positive, if the number of targets differs from
    that of entropies, for a window below 1 or a negative band.
    """
    steps = len(entropies)
    targets = list(target) if isinstance(target, Sequence) else [target] * steps
    if not steps or len(targets) != steps:
        raise ValueError(
            f"give at least one entropy, and one target or as many targets as entropies; got {steps} and "
            f"{len(targets)}"
        )
    if wrong := [aim for aim in targets if not aim > 0]:
        raise ValueError(f"target must be > 0, got {wrong[0]}")
    if window < 1 or not band >= 0:
        raise ValueError(f"window must be >= 1 and band >= 0, got window={window} and band={band}")

    time = None
    for step in range(steps, window - 1, -1):
        aim = fmean(targets[step - window : step])
        if not abs(fmean(entropies[step - window : step]) - aim) <= band * aim:
            break
        time = step
    mean = fmean(entropies[steps // 2 :])
    return Settling(mean, mean / fmean(targets[steps // 2 :]) - 1, time)
