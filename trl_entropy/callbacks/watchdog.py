"""A callback that watches entropy for a collapse, an explosion and values that are not finite."""

import logging
import math

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from .._seam import clipped_bounds, logged_signal, lower_learning_rate
from ..checks import check_number, check_saved, check_whole_number, unknown
from ..control.advice import RunState, to_move
from ..control.signals import ENTROPY, is_entropy
from ..families import warn_of_cut_sampling
from ..rules.compose import active
from .attached import Attached, has_control
from .controllers import EntropyController, trl_knobs


logger = logging.getLogger(__name__)

ACTIONS = ("lower_lr", "stop", "warn")
RAISES = {"collapse": True, "explosion": False}  # whether the entropy should go up
NOT_FINITE = "the policy's logits are not finite: resume from an earlier checkpoint with a smaller learning_rate"


class EntropyWatchdog(Attached):
    r"""
    Watch the entropy \\( H_k \\) of every optimizer step, and warn, lower the learning rate or stop the run.

    $$
    H_k < \text{floor}, \qquad H_k < (1 - \text{fall}) \, H_{k - \text{window}}, \qquad H_k > \text{ceiling}
    $$

    The first is a collapse, the second a fall, the third an explosion; the conditions are ours. An entropy that is not
    finite always counts. It stops the run unless `action` is `"warn"`, since no learning rate cures it. That step is
    not saved, so that no good checkpoint is rotated out for it. Steps in which no token is trained on are skipped and
    not counted.

    Args:
        floor (`float`, *optional*):
            Nats per token, >= 0. `None` turns a condition off, here and below.
        ceiling (`float`, *optional*):
            Nats per token, above `floor`.
        fall (`float`, *optional*):
            Share in (0, 1) of its entropy that the policy may lose in `window` steps.
        window (`int`, *optional*, defaults to `20`):
            Number of optimizer steps over which a fall is measured, and for which a lowered learning rate gets time to
            act.
        action (`str`, *optional*, defaults to `"warn"`):
            `"warn"`: warn once per condition and run, with advice. `"lower_lr"`: multiply the learning rate of all
            parameter groups, and of the scheduler from then on, by `factor`, at most once per condition in `window`
            steps. `"stop"`: save a checkpoint and end the run. The last two also warn.
        factor (`float`, *optional*, defaults to `0.5`):
            Factor in (0, 1) for `"lower_lr"`.

    Raises `ValueError` for a value out of range, and at the start of training on a plain trainer if `attach` was not
    called.
    """

    def __init__(
        self,
        floor: float | None = None,
        ceiling: float | None = None,
        fall: float | None = None,
        window: int = 20,
        action: str = "warn",
        factor: float = 0.5,
    ):
        for name, value in (("floor", floor), ("ceiling", ceiling)):
            if value is not None:
                check_number(name, value, low=0.0)
        if floor is not None and ceiling is not None and floor >= ceiling:
            raise ValueError(f"floor must be below ceiling, got floor={floor:g}, ceiling={ceiling:g}")
        for name, value in (("fall", fall), ("factor", factor)):
            if value is not None or name == "factor":
                check_number(name, value, 0.0, 1.0)
                if value in (0, 1):
                    raise ValueError(f"{name} must be > 0 and < 1, got {value:g}")
        check_whole_number("window", window)
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        self.floor, self.ceiling, self.fall, self.window = floor, ceiling, fall, window
        self.action, self.factor = action, factor
        self._reset()

    def _reset(self) -> None:
        self.recent: list[float] = []  # entropies of the last `window` + 1 steps
        self.acted: dict[str, int] = {}  # condition -> the step at which it last warned or acted

    def take(self, trainer: Trainer) -> None:
        """Log a note if the trainer's entropy is not in the unit of the limits."""
        if trainer.accelerator.is_main_process:
            warn_of_cut_sampling(trainer.args)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.attached()
        self._reset()
        # Not by way of ExportableState: restoring one makes a new callback, which would be attached to nothing
        saved = state.stateful_callbacks.get(self._key)
        if saved is not None:
            check_saved(f"{self._key} of the checkpoint", saved, {"recent": [float], "acted": {str: int}})
            self.recent, self.acted = list(saved["recent"]), dict(saved["acted"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        trainer = self.attached()
        entropy = trainer.step_entropy() if has_control(trainer) else logged_signal(trainer, ENTROPY)
        if entropy is None:
            return
        for kind, (cure, text) in self._look(entropy).items():
            self._act(kind, cure, f"{text} at step {state.global_step}", state, control, **kwargs)
        state.stateful_callbacks[self._key] = {"recent": self.recent, "acted": self.acted}

    def _look(self, entropy: float) -> dict[str, tuple[str, str]]:
        """The conditions that hold: condition -> (kind of cure, text)."""
        if not math.isfinite(entropy):
            return {"not finite": ("not finite", f"the entropy was {entropy}")}
        self.recent = [*self.recent[-self.window :], entropy]
        seen = f"the entropy was {entropy:.4g} nats"
        found = {}
        if self.floor is not None and entropy < self.floor:
            found["collapse"] = "collapse", f"{seen}, below floor={self.floor:g},"
        if self.fall is not None and len(self.recent) > self.window:
            before = self.recent[0]
            if entropy < (1 - self.fall) * before:
                text = f"{seen} after {before:.4g}, {self.window} steps before, so it fell by more than {self.fall:g}"
                found["fall"] = "collapse", text
        if self.ceiling is not None and entropy > self.ceiling:
            found["explosion"] = "explosion", f"{seen}, above ceiling={self.ceiling:g},"
        return found

    def _act(self, kind: str, cure: str, text: str, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        step, last = state.global_step, self.acted.get(kind)
        action = "stop" if kind == "not finite" and self.action == "lower_lr" else self.action
        if last is not None and (action == "warn" or (action == "lower_lr" and step < last + self.window)):
            return
        self.acted[kind] = step
        done = ""
        if action == "lower_lr":
            rates = lower_learning_rate(kwargs["optimizer"], kwargs["lr_scheduler"], self.factor)
            done = f". The learning rate is now {max(rates):.3g}"
        if action == "stop":
            control.should_training_stop = True
            control.should_save = kind != "not finite"
            done = ". The run stops"
        if state.is_world_process_zero:
            advice = to_move(RAISES[cure], facts_of(self.attached())) if cure in RAISES else NOT_FINITE
            logger.warning("%s: %s%s", text, advice, done)

    @property
    def _key(self) -> str:
        watched = {"floor": self.floor, "ceiling": self.ceiling, "fall": self.fall, "action": self.action}
        return "EntropyWatchdog" + "".join(f",{name}={value}" for name, value in watched.items())


def facts_of(trainer: Trainer) -> RunState:
    """The facts for advice, from a trainer that is training."""
    knobs = trainer.knobs if has_control(trainer) else trl_knobs(trainer)
    callbacks = trainer.callback_handler.callbacks
    controllers = [each for one in callbacks if isinstance(one, EntropyController) for each in one.controllers]
    holding = {one.knob.name for one in controllers if one.law.uses_target and is_entropy(one.signal)}
    if getattr(trainer, "use_adaptive_entropy", False):
        holding.add("entropy_coef")  # TRL's own controller
    turned = {one.knob.name for one in controllers} | holding
    sections = trainer.rules.sections if has_control(trainer) else {}
    bonuses = active(sections.get("advantage_bonuses", {})).values()
    replaced = any(bonus.replaces_advantage for bonus in bonuses)
    return RunState(dict(knobs), turned, holding, clipped_bounds(trainer), replaced)
