"""Control laws: they compute a knob's next value from the measured entropy or from the progress of the run."""

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


# Law classes, and functions that return a law for given settings
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
    """The bundled law of this name, or your own at a dotted path; `ValueError` if it is not a law."""
    if isinstance(name, str) and name in LAWS:
        return LAWS[name]
    if not isinstance(name, str) or "." not in name:
        raise unknown(f"law in {what}", name, LAWS)
    law = imported(f"law in {what}", name)
    if isinstance(law, type) and issubclass(law, Law) and not isabstract(law) and hasattr(law, "uses_target"):
        return law
    raise ValueError(f"law in {what}: {name} must be a subclass of trl_entropy.Law with uses_target and __call__")


def has_target(factory: Callable[..., Law]) -> bool:
    """Whether the law holds a target; a function of settings returns a schedule, which has no target."""
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
