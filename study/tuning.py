"""Which setting each method gets: the same rule, seeds and budget for all."""

from collections.abc import Iterable
from statistics import fmean

from .arms import GRIDS, RATES, TRIALS, TUNING_SEEDS, Arm, trial, tuned
from .results import score, values


def quality(method: str, place: int, rate: str = "shared") -> float:
    """Mean of held-out avg@8 and pass@8 at the end, over the tuning seeds. Raises `ValueError` without a run."""
    name = trial(method, place, rate)
    found = [values(name, score(metric), TUNING_SEEDS) for metric in ("avg@8", "pass@8")]
    if not all(found):
        raise ValueError(
            f"no run of {name} is kept, and a method's setting is chosen by such runs: train the parts constants and "
            "rates before this one"
        )
    return fmean(map(fmean, found))


def chosen(method: str) -> int:
    """The place of the best constant in the method's grid, at the rate that all arms share."""
    return max(range(len(GRIDS[method])), key=lambda place: quality(method, place))


def chosen_rate(method: str) -> str:
    """The name of the best rate, at that constant."""
    return max(RATES, key=lambda rate: quality(method, chosen(method), rate))


def tried() -> list[str]:
    """The methods that have been run at all of their constants and rates."""

    def is_tried(method: str) -> bool:
        constants = (trial(method, place, "shared") for place in range(len(GRIDS[method])))
        if not all(map(_is_run, constants)):
            return False
        return all(_is_run(trial(method, chosen(method), rate)) for rate in RATES)

    return [method for method in GRIDS if is_tried(method)]


def _is_run(name: str) -> bool:
    return len(values(name, score("avg@8"), TUNING_SEEDS)) == len(TUNING_SEEDS)


def constant_arms() -> dict[str, Arm]:
    """Every method at each of its constants, at the rate that all arms share."""
    return _trials((method, place, "shared") for method, grid in GRIDS.items() for place in range(len(grid)))


def rate_arms(methods: Iterable[str] = GRIDS) -> dict[str, Arm]:
    """The methods at the constants that they chose, at each rate."""
    return _trials((method, chosen(method), rate) for method in methods for rate in RATES)


def _trials(settings: Iterable[tuple[str, int, str]]) -> dict[str, Arm]:
    return {name: TRIALS[name] for name in (trial(*setting) for setting in settings)}


def chosen_arms(methods: Iterable[str] = GRIDS) -> dict[str, Arm]:
    """The methods at their settings, by name: `tuned_<method>`, and `shared_<method>` at the rate that all share."""
    return {f"tuned_{method}": tuned(method, chosen(method), chosen_rate(method)) for method in methods} | {
        f"shared_{method}": tuned(method, chosen(method), "shared") for method in methods
    }
