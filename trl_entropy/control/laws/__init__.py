"""Control laws: from the measured entropy, or from the progress of the run, to the next value of a knob."""

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


LAWS = {
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
]
