"""Callbacks that control, watch and record."""

from .controllers import EntropyCallback, EntropyController
from .recorder import Recorder
from .watchdog import EntropyWatchdog


__all__ = ["EntropyCallback", "EntropyController", "EntropyWatchdog", "Recorder"]
