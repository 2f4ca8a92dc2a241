"""Floor 4: the callback that drives a controller."""

import math
from collections.abc import Callable, MutableMapping

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .controller import Controller


class EntropyController(TrainerCallback):
    """
    After every optimizer step, let a controller decide its knob's value for the next.

    Args:
        controller ([`~controller.Controller`]):
            The law, its knob and its state.
        knobs (`MutableMapping[str, float]`):
            Where the knob is turned.
        entropy (`Callable[[], float | None]`):
            Entropy (nats) of the step that has ended, the same on every rank; `None` if no token was trained on, and
            then the knob stays.
        log (`Callable[[dict[str, float]], None]`):
            Where target and error are logged.
    """

    def __init__(
        self,
        controller: Controller,
        knobs: MutableMapping[str, float],
        entropy: Callable[[], float | None],
        log: Callable[[dict[str, float]], None],
    ):
        self.controller = controller
        self.knobs = knobs
        self.entropy = entropy
        self.log = log

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.controller.start(_num_epochs(state))
        self.knobs[self.controller.knob.name] = self.controller.value

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        entropy = self.entropy()
        if entropy is None and self.controller.law.uses_target:
            return
        if entropy is not None and not math.isfinite(entropy):
            raise ValueError(
                f"the entropy was {entropy} at step {state.global_step}: the policy's logits are not finite, so there "
                "is nothing to control; resume from an earlier checkpoint with a smaller learning_rate"
            )
        controller = self.controller
        controller.update(entropy, state.global_step / state.max_steps, state.epoch, _num_epochs(state))
        self.knobs[controller.knob.name] = controller.value
        if controller.law.uses_target:
            prefix = f"controllers/{controller.name}"
            self.log({f"{prefix}/target": controller.target, f"{prefix}/error": controller.error})


def _num_epochs(state: TrainerState) -> int:
    return math.ceil(state.num_train_epochs)
