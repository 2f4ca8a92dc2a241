"""Control laws: from the measured entropy, or from the progress of the run, to the next value of a knob."""

from .bang_bang import BangBang
from .epoch import Epoch
from .law import Law, Reading
from .pi import PI
from .stage import Stage
from .switch import Switch


LAWS = {"bang_bang": BangBang, "epoch": Epoch, "pi": PI, "stage": Stage, "switch": Switch}

__all__ = ["LAWS", "BangBang", "Epoch", "Law", "PI", "Reading", "Stage", "Switch"]
