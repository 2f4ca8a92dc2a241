"""A callback that shows a run in the terminal."""

import atexit
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig

from ..callbacks.attached import Attached
from ..callbacks.controllers import EntropyController
from ..control.signals import ENTROPY
from .panel import KnobState, LiveState, panel


SECONDS_BETWEEN = 0.25  # between two drawings


class LiveView(Attached):
    """
    Show a run in the terminal: progress, reward, entropy and its target, the knobs that controllers turn, alarms.

    On the main process, if stderr is a terminal, it replaces the progress bar and the printed logs. Elsewhere it does
    nothing. Prints, warnings and logs appear above the panel.

    Raises `ValueError` at the start of training on a plain trainer if `attach` was not called.
    """

    first = True  # called before a progress bar begins

    def __init__(self):
        self.state: LiveState | None = None  # None while nothing is shown
        self._console: Console | None = None
        self._live: Live | None = None
        self._opened = ExitStack()
        self._started = self._stepped = self._drawn = 0.0

    def on_train_begin(self, args: GRPOConfig, state: TrainerState, control: TrainerControl, **kwargs):
        callbacks = self.attached().callback_handler.callbacks
        self.stop()
        self._console = Console(stderr=True)
        if not state.is_world_process_zero or not _draws(self._console):
            return
        _replace_progress(callbacks)
        driving = [other for other in callbacks if isinstance(other, EntropyController)]
        controllers = [one for other in driving for one in other.controllers]
        holding = [one.name for one in controllers if one.law.uses_target and one.signal == ENTROPY]
        self.state = LiveState(
            title=Path(args.output_dir).name,
            max_steps=state.max_steps,
            first_step=state.global_step,
            step=state.global_step,
            target_key=f"controllers/{holding[0]}/target" if holding else None,
            knobs=[KnobState(one.knob.name, one.low, one.high) for one in controllers],
        )
        self._started = self._stepped = time.monotonic()
        atexit.register(self.stop)  # a failing run does not reach the end of training
        self._show()

    def on_step_begin(self, args: GRPOConfig, state: TrainerState, control: TrainerControl, **kwargs):
        self._show()

    def on_step_end(self, args: GRPOConfig, state: TrainerState, control: TrainerControl, **kwargs):
        if self.state is None:
            return
        now = time.monotonic()
        self.state.step, self.state.seconds, self.state.elapsed = (
            state.global_step,
            now - self._stepped,
            now - self._started,
        )
        self._stepped = now
        self._draw()

    def on_log(self, args: GRPOConfig, state: TrainerState, control: TrainerControl, logs=None, **kwargs):
        if self.state is None:
            return
        self.state.update(state.global_step, logs)
        if args.log_completions:
            self._hide()  # TRL prints completions past any redirection; the next step shows the panel again
        else:
            self._draw()

    def on_train_end(self, args: GRPOConfig, state: TrainerState, control: TrainerControl, **kwargs):
        self.stop()

    def stop(self) -> None:
        """Leave the last panel in place and release the terminal; does nothing if no panel is shown."""
        if self.state is None:
            return
        self._hide()
        self._console.print(panel(self.state))
        self.state = None
        atexit.unregister(self.stop)

    def _show(self) -> None:
        if self.state is None or self._live is not None:
            return
        before = sys.stdout, sys.stderr
        live = Live(
            panel(self.state),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live = self._opened.enter_context(live)
        self._console.show_cursor(True)  # visible even if the process is killed
        for handler in _stream_handlers():
            for stream, redirected in zip(before, (sys.stdout, sys.stderr), strict=True):
                if handler.stream is stream:
                    handler.setStream(redirected)
                    self._opened.callback(handler.setStream, stream)
                    break

    def _hide(self) -> None:
        self._opened.close()
        self._live = None

    def _draw(self) -> None:
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= SECONDS_BETWEEN:
            self._drawn = now
            self._live.update(panel(self.state), refresh=True)


def _draws(console: Console) -> bool:
    """Whether a panel can be drawn: `FORCE_COLOR` does not turn a file into a terminal."""
    return sys.stderr.isatty() and not console.is_dumb_terminal and console.encoding.startswith("utf")


def _replace_progress(callbacks: list[TrainerCallback]) -> None:
    """Replace the callbacks that draw or print progress by callbacks that do nothing."""
    for place, other in enumerate(callbacks):
        if isinstance(other, ProgressCallback | PrinterCallback):
            callbacks[place] = TrainerCallback()


def _stream_handlers() -> set[logging.StreamHandler]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", [])}
    return {handler for handler in handlers if isinstance(handler, logging.StreamHandler)}
