"""A run of the command line that `test_bad_days.py` starts in a process of its own, and what goes wrong in it."""

import os
import resource
import signal
import sys

import torch
from toy import halves
from transformers import TrainerCallback

from trl_entropy.commands.grpo import build_trainer, fit, prepare


def reward(prompts, completions, **kwargs) -> list[float]:
    return halves(prompts, completions)


class AtStep(TrainerCallback):
    """Does it at the end of an optimizer step, before that step is saved."""

    def __init__(self, step: int, what):
        self.step, self.what = step, what

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.what(model)


def kill(model) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(model) -> None:
    """No file may grow beyond 50 kB from here on; only the optimizer's state is larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))


def not_a_number(model) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan


def main() -> None:
    torch.set_num_threads(1)
    what, step, *arguments = sys.argv[1:]
    job = prepare(arguments)
    callbacks = [] if what == "nothing" else [AtStep(int(step), globals()[what])]
    fit(job, build_trainer(job, callbacks))


if __name__ == "__main__":
    main()
