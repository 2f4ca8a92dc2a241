"""The callbacks that every trainer of ours has."""

from transformers import TrainerCallback

from ..checks import lab
from .recorder import Recorder


def with_own(callbacks: list | None, live_view: bool) -> list:
    """The callbacks that a trainer was given, a [`Recorder`] and, if asked for, a `LiveView`; none of them twice."""
    given = callbacks or []
    kinds = [one if isinstance(one, type) else type(one) for one in given]
    own = [Recorder, lab("live", "live_view").LiveView] if live_view else [Recorder]
    return [*given, *(kind() for kind in own if not any(issubclass(other, kind) for other in kinds))]


def stop_views(callbacks: list[TrainerCallback]) -> None:
    """Give the terminal back, whatever has ended the run."""
    for callback in callbacks:
        if hasattr(callback, "stop"):
            callback.stop()
