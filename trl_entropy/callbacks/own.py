"""How a trainer with entropy control handles its callbacks."""

from transformers import Trainer, TrainerCallback

from ..checks import lab
from .attached import Attached
from .recorder import Recorder


def with_own(given: list | None, live_view: bool) -> list[TrainerCallback]:
    """The given callbacks, plus a [`Recorder`] and, with `live_view`, a `LiveView`, unless they are already there."""
    own = [Recorder, lab("live", "live_view").LiveView] if live_view else [Recorder]
    callbacks = [one() if isinstance(one, type) else one for one in given or []]
    return [*callbacks, *(kind() for kind in own if not any(isinstance(one, kind) for one in callbacks))]


def attach_all(trainer: Trainer) -> None:
    """Attach every callback that needs its trainer."""
    for callback in _attached(trainer):
        callback.attach(trainer)


def stop_all(trainer: Trainer) -> None:
    """Release the callbacks' resources, however the run ended."""
    for callback in _attached(trainer):
        callback.stop()


def _attached(trainer: Trainer) -> list[Attached]:
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Attached)]
