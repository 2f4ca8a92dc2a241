"""Find what happened to the entropy of a run, and which tokens caused it."""

import math
from collections.abc import Callable
from statistics import correlation, fmean, stdev, variance

from ....control.advice import to_move, turns
from ..control import BAND, common, held
from ..facts import facts
from ..runs import Run, Series
from ..statistics import WINDOW, ends, finite, smooth
from .finding import BAD, GOOD, MIN_LOGS, NOTE, Finding, enough


# All of these are ours
COLLAPSE, EXPLOSION = 0.3, 1.5  # shares of the starting entropy
ONE_SIDED = 0.7  # share of the predicted fall that tokens with one sign must have
ERRORS = 2.0  # standard errors that the predicted fall must exceed
EXPLAINS, FAILS = 0.5, 0.2  # correlations


def collapse(run: Run) -> list[Finding]:
    """Entropy that fell far below its start, without a controller's target asking for it."""
    what = f"fell below {COLLAPSE:.0%} of its start"
    return _crossing(run, lambda value, start: value < COLLAPSE * start, what, up=True)


def explosion(run: Run) -> list[Finding]:
    """Entropy that rose far above its start, without a controller's target asking for it."""
    what = f"rose above {EXPLOSION:.0%} of its start"
    return _crossing(run, lambda value, start: EXPLOSION * start < value < math.inf, what, up=False)


def _crossing(run: Run, outside: Callable[[float, float], bool], what: str, up: bool) -> list[Finding]:
    steps, values = run.series.get("entropy", Series([], []))
    if len(values) < MIN_LOGS:
        return []
    start, end = ends(values)
    pairs = list(zip(steps, smooth(values), strict=True))[WINDOW:]  # a mean that includes NaN is never outside
    first = next((pair for pair in pairs if outside(pair[1], start)), None)
    if first is None or _asked_for(run, end):
        return []
    back = math.isfinite(end) and not outside(end, start)
    text = f"Entropy {what} at step {first[0]}" + (" and came back" if back else "")
    evidence = f"{start:.2f} → {first[1]:.2f} at step {first[0]} → {end:.2f} nats at the end"
    advice = to_move(up, facts(run))
    return [Finding(text, evidence, NOTE if back else BAD, f"{advice[0].upper()}{advice[1:]}.")]


def _asked_for(run: Run, end: float) -> bool:
    """Whether a controller's target asks for the entropy at the end."""
    return any(abs(end - aim.target) <= BAND * aim.target for aim in held(run) if aim.signal == "entropy")


def sources(run: Run) -> list[Finding]:
    """Which tokens the predicted fall of entropy came from; the size of a prediction is not meaningful."""
    parts = {sign: enough(run, f"entropy_change/predicted_{sign}") for sign in ("positive", "negative")}
    entropy = enough(run, "entropy")
    if not entropy or not all(parts.values()) or ends(entropy)[1] >= ends(entropy)[0]:
        return []
    means = {sign: fmean(values) for sign, values in parts.items()}
    total, number = sum(means.values()), min(map(len, parts.values()))
    error = math.sqrt(sum(variance(values) for values in parts.values()) / number)
    side = min(means, key=means.get)
    if total >= -ERRORS * error or means[side] / total < ONE_SIDED:
        return []
    if means[side] < total:
        text = f"The predicted fall came from tokens with {side} advantage; the others were predicted to raise entropy"
    else:
        text = f"{means[side] / total:.0%} of the predicted fall came from tokens with {side} advantage"
    evidence = "means of the predictions: {positive:+.2g} (positive) and {negative:+.2g} (negative) nats per unit step"
    return [Finding(text, evidence.format(**means), NOTE, _weight(side, run))]


def _weight(side: str, run: Run) -> str:
    if side == "negative":
        return "Do not lower negative_advantage_coef for that: where we measured it, entropy fell as far or further."
    can_lower = "positive_advantage_coef" in turns(True, facts(run))
    return "To keep more entropy, lower positive_advantage_coef, or let a controller turn it." if can_lower else ""


def prediction(run: Run) -> list[Finding]:
    """How well predicted and observed changes of entropy agree."""
    keys = ("entropy_change/predicted", "entropy_change/observed")
    steps, predicted, observed = common(*(finite(run.series.get(key)) for key in keys))
    if len(steps) < MIN_LOGS or not stdev(predicted) or not stdev(observed):
        return []
    fit = correlation(predicted, observed)
    evidence = f"correlation {fit:.2f} over {len(steps)} logged steps"
    if fit >= EXPLAINS:
        return [Finding("Predicted changes of entropy agree with the observed ones", evidence, GOOD)]
    if fit < FAILS:
        advice = "Do not rely on the split by sign: single steps are noisy, and the prediction is only first-order."
        return [Finding("Predicted changes of entropy do not agree with the observed ones", evidence, NOTE, advice)]
    return []
