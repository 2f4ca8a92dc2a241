"""Control laws: from the measured entropy, or from the progress of the run, to the next value of a knob."""

from inspect import isabstract

from ...checks import imported, unknown
from .bang_bang import BangBang
from .constant import Constant
from .epoch import Epoch
from .integral import Integral
from .law import Law, Memory, Reading
from .pi import PI
from .ratchet import Ratchet
from .schedule import Schedule
from .stage import Stage
from .switch import Switch


LAWS: dict[str, type[Law]] = {
    "bang_bang": BangBang,
    "constant": Constant,
    "epoch": Epoch,
    "integral": Integral,
    "pi": PI,
    "ratchet": Ratchet,
    "schedule": Schedule,
    "stage": Stage,
    "switch": Switch,
}


def law_class(what: str, name: str) -> type[Law]:
    """The bundled law of this name, or that of your own at a dotted path. Raises `ValueError` if it is no law."""
    if name in LAWS:
        return LAWS[name]
    if "." not in str(name):
        raise unknown(f"law in {what}", name, LAWS)
    law = imported(f"law in {what}", name)
    if isinstance(law, type) and issubclass(law, Law) and not isabstract(law) and hasattr(law, "uses_target"):
        return law
    raise ValueError(f"law in {what}: {name} must be a subclass of trl_entropy.Law with uses_target and __call__")


__all__ = [
    "LAWS",
    "BangBang",
    "Constant",
    "Epoch",
    "Integral",
    "Law",
    "Memory",
    "PI",
    "Ratchet",
    "Reading",
    "Schedule",
    "Stage",
    "Switch",
    "law_class",
]
