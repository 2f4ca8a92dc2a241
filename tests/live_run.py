"""A run under a `LiveView` that fails in its third step: MODEL FOLDER plain|package crash|interrupt|exit|kill."""

import logging
import os
import signal
import sys

import torch
from toy import build_trainer, sums
from transformers import TrainerCallback

from trl_entropy import LiveView


class Fail(TrainerCallback):
    def __init__(self, how: str):
        self.how = how

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            logging.getLogger("somewhere").warning("a last word")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                sys.exit(3)
            raise KeyboardInterrupt if self.how == "interrupt" else RuntimeError("broken in the middle")


def main() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(format="%(name)s: %(message)s")
    model, folder, kind, how = sys.argv[1:]
    show = {"plain": True} if kind == "plain" else {"live_view": True}
    trainer = build_trainer(model, sums(), folder, callbacks=[Fail(how)], **show)
    if kind == "plain":
        LiveView().attach(trainer)
    trainer.train()


if __name__ == "__main__":
    main()
