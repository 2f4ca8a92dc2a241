"""Save and load the state beside a checkpoint, and find complete checkpoints."""

import json
import logging
import os
import shutil
from collections.abc import Callable

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..checks import check_saved, damaged


logger = logging.getLogger(__name__)

STATE_FILE = "entropy_control.json"
WHOLE = (STATE_FILE, TRAINER_STATE_NAME)  # what a checkpoint has that was written to its end
VERSION = 1  # of the state's layout; a file without a version has the first one


def save(trainer, save_checkpoint: Callable, model, trial) -> None:
    """Save TRL's checkpoint, then the trainer's `control_state()`: a checkpoint with this state is complete."""
    folder = os.path.join(trainer._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}")
    try:
        save_checkpoint(model, trial)
    except (OSError, RuntimeError, SafetensorError) as error:  # raised by torch and safetensors on a full disk
        free = shutil.disk_usage(trainer.args.output_dir).free / 1e9
        raise OSError(
            f"{folder} could not be written ({error}); {free:.1f} GB are free. Once there is space, "
            "resume_from_checkpoint=true resumes from the previous checkpoint"
        ) from error
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        path = os.path.join(folder, STATE_FILE)
        with open(f"{path}.part", "w") as file:
            json.dump({"version": VERSION, **trainer.control_state()}, file, indent=2)
        os.replace(f"{path}.part", path)


def load(trainer, checkpoint: str | None) -> None:
    """Pass a checkpoint's state to the trainer's `load_control_state()`. Raises `ValueError` if it is damaged."""
    if checkpoint is None:
        return
    path = os.path.join(checkpoint, STATE_FILE)
    state = {"controllers": {}}  # for a checkpoint of plain TRL
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            try:
                state = json.load(file)
            except ValueError as error:  # not JSON, or not text
                raise damaged(path, error) from error
        check_saved(path, state, {"controllers": {str: dict}})
        check_saved(path, version := state.get("version", VERSION), int, "version")
        if version > VERSION:
            raise ValueError(
                f"{path} has version {version} of the state, but this trl-entropy reads version {VERSION}: upgrade "
                "trl-entropy"
            )
    trainer.load_control_state(state, path)


def last_checkpoint(output_dir: str) -> str | None:
    """
    The last complete checkpoint of a run, or `None` if there is no checkpoint.

    A checkpoint without our state, after one with it, is incomplete: the run was killed, or the disk was full. If none
    has our state, they are plain TRL's, and the last one counts.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    steps = sorted(int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdecimal())
    found = [os.path.join(output_dir, f"{prefix}{step}") for step in steps]
    whole = [path for path in found if all(os.path.exists(os.path.join(path, name)) for name in WHOLE)]
    if not whole:
        return found[-1] if found else None
    for path in found[found.index(whole[-1]) + 1 :]:
        logger.warning("%s was not written completely and is skipped", path)
    return whole[-1]
