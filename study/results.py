"""Numbers of one run, and of an arm over its seeds."""

from collections.abc import Callable, Sequence
from statistics import correlation, fmean

from .arms import SEEDS
from .statistics import Effect, effect, rank_correlation
from .store import load


Metric = Callable[[dict], float | None]
LAST = 0.2  # of the run: what the values at its end are means of


def at_end(name: str) -> Metric:
    """Mean of a logged value over the last fifth of a run."""
    return lambda run: _mean_of_last(_known(run["series"][name]))


def at_start(name: str) -> Metric:
    """The first value of a series."""
    return lambda run: _known(run["series"][name])[0]


def change(name: str) -> Metric:
    """The last fifth of a run less its first value."""
    return lambda run: at_end(name)(run) - at_start(name)(run)


def total(name: str) -> Metric:
    """Sum of a logged value over all steps."""
    return lambda run: sum(_known(run["series"][name])) * run["window"]


def score(name: str) -> Metric:
    """A score on the held-out problems at the end; `None` if they were not solved."""
    return lambda run: run["scores"][-1].get(name) if run["scores"] else None


def gain(name: str) -> Metric:
    """That score at the end less that before training."""
    return lambda run: run["scores"][-1][name] - run["scores"][0][name]


def ranks(x: str, y: str) -> Metric:
    """Spearman's correlation of two scores along a run."""
    return lambda run: rank_correlation(*zip(*((row[x], row[y]) for row in run["scores"]), strict=True))


def miss(target: float) -> Metric:
    """How far from its target the entropy is at the end, in nats."""
    return lambda run: abs(at_end("entropy")(run) - target)


def link(updates: int) -> Metric:
    """Pearson's correlation of predicted and observed change of entropy, so many updates after a rollout."""
    return lambda run: correlation(*zip(*predictions(run, updates), strict=True))


def predictions(run: dict, updates: int) -> list[tuple[float, float]]:
    """Predicted and observed change of entropy of every step so many updates after a rollout."""
    names = ("entropy_change/predicted", "entropy_change/observed", "staleness/updates")
    rows = zip(*(run["series"][name] for name in names), strict=True)
    return [(p, o) for p, o, u in rows if None not in (p, o) and u == updates]


def at_reward(level: float, name: str) -> Metric:
    """A held-out score where the training reward first reaches a level, between two evaluations; `None` if never."""

    def of(run: dict) -> float | None:
        steps, rewards = run["series"]["step"], run["series"]["reward"]
        there = next((s for s, r in zip(steps, rewards, strict=True) if r is not None and r >= level), None)
        if there is None:
            return None
        for before, after in zip(run["scores"], run["scores"][1:], strict=False):
            if before["step"] <= there <= after["step"]:
                share = (there - before["step"]) / (after["step"] - before["step"])
                return before[name] + share * (after[name] - before[name])
        return run["scores"][-1][name]

    return of


def values(arm: str, metric: Metric, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """Of every run of an arm that is kept."""
    found = [metric(run) for seed in seeds if (run := load(arm, seed)) is not None]
    return [value for value in found if value is not None]


def differences(arm: str, against: str, metric: Metric, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """Of every seed that both arms have."""
    pairs = [(load(arm, seed), load(against, seed)) for seed in seeds]
    found = [(metric(a), metric(b)) for a, b in pairs if a is not None and b is not None]
    return [a - b for a, b in found if a is not None and b is not None]


def ranks_over(arms: Sequence[str], x: Metric, y: Metric, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """Spearman's correlation of two numbers over the arms, of every seed that all of them have."""
    rows = ([load(arm, seed) for arm in arms] for seed in seeds)
    complete = [runs for runs in rows if None not in runs]
    return [rank_correlation([x(run) for run in runs], [y(run) for run in runs]) for runs in complete]


def runs_of(arm: str) -> list[dict]:
    """The runs of an arm that are kept."""
    return [run for seed in SEEDS if (run := load(arm, seed)) is not None]


def over_seeds(arm: str, name: str, of: str = "series") -> tuple[list[int], list[Effect]]:
    """A series or a score of an arm along the run: steps, and means with intervals."""
    rows = [
        dict(zip(run["series"]["step"], run["series"][name], strict=True))
        if of == "series"
        else {row["step"]: row.get(name) for row in run["scores"]}
        for run in runs_of(arm)
    ]
    steps = [step for step in rows[0] if all(row.get(step) is not None for row in rows)]
    return steps, [effect([row[step] for row in rows]) for step in steps]


def _known(series: list[float | None]) -> list[float]:
    return [value for value in series if value is not None]


def _mean_of_last(known: list[float]) -> float:
    return fmean(known[-max(1, round(LAST * len(known))) :])
