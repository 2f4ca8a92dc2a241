"""Callbacks that control, watch and record."""

from .attached import Attached
from .controllers import EntropyCallback, EntropyController
from .recorder import Recorder
from .watchdog import EntropyWatchdog


__all__ = ["Attached", "EntropyCallback", "EntropyController", "EntropyWatchdog", "Recorder"]
