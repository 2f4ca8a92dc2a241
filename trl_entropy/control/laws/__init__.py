"""Control laws: from the measured entropy, or from the progress of the run, to the next value of a knob."""

from collections.abc import Callable
from inspect import isabstract

from ...checks import imported, unknown
from .bang_bang import BangBang
from .epoch import Epoch
from .integral import Integral
from .law import Law, Memory, Observation
from .pi import PI
from .ratchet import Ratchet
from .schedule import Schedule, constant, stage, switch


# Classes of laws, and functions of their settings that give a law
LAWS: dict[str, Callable[..., Law]] = {
    "bang_bang": BangBang,
    "constant": constant,
    "epoch": Epoch,
    "integral": Integral,
    "pi": PI,
    "ratchet": Ratchet,
    "schedule": Schedule,
    "stage": stage,
    "switch": switch,
}


def law_factory(what: str, name: str) -> Callable[..., Law]:
    """The class of the bundled law of this name, or your own at a dotted path; `ValueError` if it is not a law."""
    if isinstance(name, str) and name in LAWS:
        return LAWS[name]
    if not isinstance(name, str) or "." not in name:
        raise unknown(f"law in {what}", name, LAWS)
    law = imported(f"law in {what}", name)
    if isinstance(law, type) and issubclass(law, Law) and not isabstract(law) and hasattr(law, "uses_target"):
        return law
    raise ValueError(f"law in {what}: {name} must be a subclass of trl_entropy.Law with uses_target and __call__")


def has_target(factory: Callable[..., Law]) -> bool:
    """Whether its law holds a target; a function of settings gives a schedule, which has none."""
    return getattr(factory, "uses_target", False)


__all__ = [
    "LAWS",
    "BangBang",
    "Epoch",
    "Integral",
    "Law",
    "Memory",
    "Observation",
    "PI",
    "Ratchet",
    "Schedule",
    "has_target",
    "law_factory",
]
