"""Read the facts that advice depends on from a run's files."""

from ...control.advice import KNOBS, REPLACING_BONUSES, RunState
from ...control.names import CLIP_RATIOS, LEARNING_RATE_SCALE
from .control import held, turned_knobs
from .runs import Run


DEFAULTS = {"entropy_coef": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2}  # of GRPOTrainer's knobs


def facts(run: Run) -> RunState:
    """
    The facts that advice depends on.

    A run without saved settings counts as a `GRPOTrainer` with default knobs.
    """
    adaptive = {"entropy_coef"} if run.settings.get("use_adaptive_entropy") else set()  # TRL's own controller
    turned = turned_knobs(run).keys() | adaptive
    holding = {aim.knob for aim in held(run) if aim.signal.startswith("entropy")}
    clipped = {
        bound
        for bound, key in CLIP_RATIOS.items()
        if key in run.series and any(share > 0 for share in run.series[key].values)
    }
    holding = (turned if None in holding else holding) | adaptive
    return RunState(_values(run), turned, holding, clipped, bool({*REPLACING_BONUSES} & bonuses(run)))


def bonuses(run: Run) -> set[str]:
    """The advantage bonuses that a run used."""
    return set(run.settings.get("advantage_bonuses") or {})


def _values(run: Run) -> dict[str, float]:
    """The knobs of a run, with their last values."""
    logged = {name: run.series[f"knobs/{name}"].values[-1] for name in KNOBS if f"knobs/{name}" in run.series}
    if f"knobs/{LEARNING_RATE_SCALE}" in run.series:
        return logged  # this package's trainers log all their knobs
    given = dict(run.settings)
    if "epsilon" in given:
        given["epsilon_low"] = given["epsilon"]
        given["epsilon_high"] = given["epsilon"] if given.get("epsilon_high") is None else given["epsilon_high"]
    known = {name: given[name] for name in DEFAULTS if name in given} if given else DEFAULTS
    return known | logged


def off_policy(run: Run) -> bool:
    """Whether the settings give a rollout batch several optimizer updates."""
    if "staleness/updates" in run.series:
        return max(run.series["staleness/updates"].values) > 0
    keys = ("steps_per_generation", "num_iterations", "gradient_accumulation_steps")
    micro_batches, passes, of_a_step = (run.settings.get(key) for key in keys)
    return None not in (micro_batches, passes, of_a_step) and micro_batches * passes > of_a_step
