"""Control laws: from the measured entropy, or from the progress of the run, to the next value of a knob."""

from collections.abc import Callable

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

__all__ = ["LAWS", "BangBang", "Epoch", "Integral", "Law", "Memory", "Observation", "PI", "Ratchet", "Schedule"]
