"""Check whether a weight on one sign of the advantage could hold the entropy of a run."""

from statistics import fmean

from ....control.advice import HOLD, NO_AUTHORITY, PREDICTED, SIGN_COEFFICIENTS, without_authority
from ..control import held
from ..facts import facts
from ..runs import Run
from ..statistics import finite
from .finding import BAD, NOTE, Finding, enough


MEASURES = {
    "authority/noise_share": "{:.0%} of the gradient is noise",
    "authority/samples_per_context": "{:.1f} samples per context",
}


def authority(run: Run) -> list[Finding]:
    """A coefficient of one sign that is set or turned although tokens with both signs pull the entropy down."""
    known = facts(run)
    used = [name for name in SIGN_COEFFICIENTS if name in known.turned or known.values.get(name, 1.0) != 1]
    settled = any(aim.knob in used and aim.settled is not None for aim in held(run))
    parts = [enough(run, name) for name in PREDICTED]
    if not used or settled or "entropy_coef" in known.turned or not all(parts) or not without_authority(*parts):
        return []
    predicted = "means of the predictions: {:+.2g} (positive) and {:+.2g} (negative) nats per unit step"
    measured = {text: finite(run.series.get(name)).values for name, text in MEASURES.items()}
    evidence = [text.format(fmean(values)) for text, values in measured.items() if values]
    evidence = "; ".join([predicted.format(*map(fmean, parts)), *evidence])
    severity = BAD if {*used} & {*known.holding} else NOTE
    return [Finding(f"{used[0]} {NO_AUTHORITY}", evidence, severity, f"{HOLD[0].upper()}{HOLD[1:]}.")]
