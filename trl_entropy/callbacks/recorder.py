"""A callback that writes all logs to a file, as JSON lines."""

import json
import os
import re
import time
from collections.abc import Mapping
from copy import copy
from itertools import count
from pathlib import Path

import torch
import transformers
import trl
from transformers import TrainerControl, TrainerState, TrainingArguments

from .. import __version__
from .attached import Attached, has_control


FILE = "metrics.jsonl"
SECRET = re.compile(r"(token|api_key|password|secret)$", re.IGNORECASE)
NOT_JSON = object()


class Recorder(Attached):
    """
    Write all logs to `metrics.jsonl` in `output_dir`, one JSON line at a time.

    With entropy control it also writes the values that `entropy_measures` measures without logging them, and adds them
    to the trainer's `log_history`.

    A line has the optimizer `step`, the `time` in seconds since the epoch, and the logged values; a NaN is `NaN`. Each
    start of training first writes `{"run": {"settings", "versions", "started", "step"}}`. A resumed run appends. A new
    run starts a new file, and keeps an earlier run's file as `metrics.1.jsonl`, then `metrics.2.jsonl`. Only the main
    process writes. Values that JSON cannot hold are left out, and access tokens are hidden.

    Raises `OSError` if the file cannot be written.
    """

    def __init__(self) -> None:
        self.path: Path | None = None  # None before training, and on other processes

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if not state.is_world_process_zero:
            return
        self.path = Path(args.output_dir) / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if state.global_step == 0:
            if self.path.is_file():
                self.path.rename(_next_to(self.path))
        elif self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            self._write("\n")  # the run was killed while writing
        versions = {"trl_entropy": __version__, **{of.__name__: of.__version__ for of in (trl, transformers, torch)}}
        run = {"settings": settings(args), "versions": versions, "started": time.time(), "step": state.global_step}
        self._write(json.dumps({"run": run}) + "\n")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs):
        if has_control(self.trainer) and logs.keys() & {
            "loss",
            "train_loss",
        }:  # logs of steps, or of the end of a run
            measured = self.trainer.metrics.take()
            state.log_history[-1] |= measured
            logs = {**logs, **measured}
        if self.path is None:
            return
        row = {"step": state.global_step, "time": time.time()}
        self._write(json.dumps({**row, **as_json(logs), **row}) + "\n")

    def _write(self, text: str) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:  # closed at once, so a crash loses nothing
                file.write(text)
        except OSError as error:  # the error for a full disk does not name the file
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _next_to(path: Path) -> Path:
    """The first of `metrics.1.jsonl`, `metrics.2.jsonl` and so on that does not exist."""
    names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def settings(args: TrainingArguments) -> dict:
    """The config as JSON values, without access tokens."""
    own = copy(args)
    # `to_dict` writes into the mappings that it finds
    vars(own).update({name: dict(value) for name, value in vars(args).items() if isinstance(value, dict)})
    return as_json(own.to_dict())


def as_json(value):
    """`value` without parts that are not JSON; a scalar tensor becomes a number, and secrets are hidden."""
    if isinstance(value, Mapping):
        items = {str(key): f"<{key.upper()}>" if _secret(key, item) else as_json(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not NOT_JSON}
    if isinstance(value, list | tuple):
        return [item for item in map(as_json, value) if item is not NOT_JSON]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "shape", None) == ():
        return value.item()
    return NOT_JSON


def _secret(key, value) -> bool:
    return isinstance(key, str) and isinstance(value, str) and SECRET.search(key) is not None
