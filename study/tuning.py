"""Which of its three settings each method gets: the same rule, seeds and budget for all."""

from statistics import fmean

from .arms import GRIDS, TUNING_SEEDS, Arm, tuned
from .results import score, values


def quality(method: str, place: int) -> float:
    """Mean of held-out avg@8 and pass@8 at the end, over the tuning seeds."""
    name = f"{method}.{place}"
    return fmean(fmean(values(name, score(metric), TUNING_SEEDS)) for metric in ("avg@8", "pass@8"))


def chosen(method: str) -> int:
    """The place of the best setting in the method's grid."""
    return max(range(len(GRIDS[method])), key=lambda place: quality(method, place))


def chosen_arms() -> dict[str, Arm]:
    """The methods at their settings, by name: `tuned_<method>`."""
    return {f"tuned_{method}": tuned(method, chosen(method)) for method in GRIDS}
