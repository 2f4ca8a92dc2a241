"""Check whether the controllers of a run reached their targets, and what their knobs did."""

import math

from ....control.advice import acts
from ..control import BAND, Held, held, turned_knobs
from ..facts import facts
from ..runs import Run
from .finding import BAD, GOOD, NOTE, Finding, enough


AT_LIMIT = 0.5  # ours: the share of the last half that a knob may spend at one end of its range
MISSED = (
    "The target was missed: widen the controller's low and high if the knob's range allows it, or turn another knob."
)
IDLE = "No token was clipped, so the knob did nothing: turn another knob."


def control(run: Run) -> list[Finding]:
    """Whether every signal settled on its target."""
    known = facts(run)
    return [
        _of_controller(aim, aim.knob is not None and not acts(aim.knob, known))
        for aim in held(run)
        if aim.error is not None and enough(run, f"controllers/{aim.name}/target")
    ]


def _of_controller(aim: Held, idle: bool) -> Finding:
    evidence = f"mean of the last half {aim.error:+.1%} from the target, which ended at {aim.target:.3g}"
    if aim.settled is not None:
        text = f"{aim.name}: {aim.signal} settled within {BAND:.0%} of its target at step {aim.settled}"
        return Finding(text, evidence, GOOD)
    text = f"{aim.name}: {aim.signal} did not settle within {BAND:.0%} of its target"
    if math.isnan(aim.error):
        return Finding(text, f"the mean of the last half is nan, the target ended at {aim.target:.3g}", BAD)
    if abs(aim.error) <= BAND:
        return Finding(
            text,
            evidence,
            NOTE,
            "It settled late, or oscillates around its target: in that case lower the law's gains or step.",
        )
    advice = "Give it more steps, raise the law's gains, or turn a knob that does more in this run."
    if idle:
        advice = IDLE
    return Finding(text, evidence, BAD, advice)


def limits(run: Run) -> list[Finding]:
    """Knobs of controllers with a target that did not move, or stayed at one end of their range."""
    aims = held(run)
    turned = list(turned_knobs(run))
    knobs = [name for name in turned if name in {aim.knob for aim in aims}]
    if aims and not run.settings and len(turned) == 1:
        knobs = turned
    known = facts(run)
    found = [_of_knob(name, enough(run, f"knobs/{name}"), _missed(aims, name), acts(name, known)) for name in knobs]
    return [finding for finding in found if finding is not None]


def _missed(aims: list[Held], knob: str) -> bool:
    return any(aim.settled is None and aim.error is not None for aim in aims if aim.knob in (knob, None))


def _of_knob(name: str, values: list[float], missed: bool, acting: bool) -> Finding | None:
    if not values:
        return None
    low, high = min(values), max(values)
    last = values[len(values) // 2 :]
    end = max(low, high, key=last.count)
    share = last.count(end) / len(last)
    if low == high:
        text = f"{name} did not move from {end:.3g}"
    elif share > AT_LIMIT:
        which = "lowest" if end == low else "highest"
        text = f"{name} stayed at its {which} value, {end:.3g}, for {share:.0%} of the last half"
    else:
        return None
    evidence = f"{len(values)} logged steps, in which it ranged from {low:.3g} to {high:.3g}"
    advice = MISSED if acting else IDLE
    return Finding(text, evidence, BAD if missed else NOTE, advice if missed else "")
