"""The callbacks that drive controllers."""

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, MutableMapping
from functools import partial

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .._seam import clipped_bounds, log_means, logged_signal, rollout_ends, set_entropy_coef
from ..control.advice import HOLD, NO_AUTHORITY, PREDICTED, SIGN_COEFFICIENTS, without_authority
from ..control.controller import Controller, build_controllers
from ..control.knobs import ACTS_ON, SCALE_KNOB, TEMPERATURE, TEMPERATURE_KNOB, TRL_KNOBS, Knob, Knobs
from ..control.laws import has_target, law_factory
from ..control.names import CLIP_RATIOS
from ..control.signals import ENTROPY, TRL_SIGNALS
from ..families import (
    clip_range_given,
    family_of,
    installed_trl,
    warn_if_untested,
    warn_of_cut_sampling,
)
from ..measures import WHY_KNOBS, Idle
from ..refusals import check_clip_acts, check_signal_of
from .attached import Attached, has_control


logger = logging.getLogger(__name__)

STEPS_OF_AUTHORITY = 100  # ours: the number of last optimizer steps whose predicted changes count
SOURCE = "trainer_state.json of the checkpoint"


class EntropyController(TrainerCallback):
    """
    Let controllers set their knobs' values for the next optimizer step, after every step.

    It warns once about a knob that changed no token in the first steps of a run, and about a coefficient of one sign
    in a run where both signs pull the entropy down.

    Args:
        controllers (`list[Controller]`):
            The laws, their knobs and their state.
        knobs (`MutableMapping[str, float]`):
            The knobs to turn.
        read (`Callable[[str], float | None]`):
            Returns a signal's value in the completed step, the same on every rank; `None` if there is none.
        log (`Callable[[dict[str, float]], None]`):
            Logs target and error.
        rollout_ends (`Callable[[], bool]`):
            Whether the completed step was the last of its rollout batch.
        clipped (`Callable[[], Collection[str]]`):
            The bounds of the clip range, by knob, at which tokens were clipped in this run.

    Raises `ValueError` for a signal that is not finite.
    """

    def __init__(
        self,
        controllers: list[Controller],
        knobs: MutableMapping[str, float],
        read: Callable[[str], float | None],
        log: Callable[[dict[str, float]], None],
        rollout_ends: Callable[[], bool],
        clipped: Callable[[], Collection[str]],
    ):
        self.controllers = controllers
        self.knobs = knobs
        self.read = read
        self.log = log
        self.rollout_ends = rollout_ends
        self.clipped = clipped
        self._begin()

    def _begin(self) -> None:
        self._idle = Idle(WHY_KNOBS)
        self._predicted: deque[tuple[float, float]] = deque(maxlen=STEPS_OF_AUTHORITY)
        self._told = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._begin()
        for controller in self.controllers:
            if state.global_step == 0:  # a resumed run continues
                controller.start(_num_epochs(state))
            self.knobs[controller.knob.name] = controller.value

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        turned = [controller.knob.name for controller in self.controllers]
        self._idle.look({name: self._acts(name) for name in turned if name in ACTS_ON and self._idle.watches(name)})
        self._look_at_authority(turned, state)
        for controller in self.controllers:
            self._decide(controller, state)

    def _look_at_authority(self, turned: Collection[str], state: TrainerState) -> None:
        used = [name for name in SIGN_COEFFICIENTS if name in turned or self.knobs.get(name, 1.0) != 1]
        if self._told or not used or "entropy_coef" in turned:
            return
        changes = tuple(map(self.read, PREDICTED))
        if None in changes or not all(map(math.isfinite, changes)):
            return
        self._predicted.append(changes)
        if without_authority(*zip(*self._predicted, strict=True)):
            self._told = True
            if state.is_world_process_zero:
                logger.warning("%s %s: %s. See docs/authority.md", used[0], NO_AUTHORITY, HOLD)

    def _acts(self, knob: str) -> bool:
        # A callback that calls trainer.log removes the step's clip ratios, but they are in the history
        return knob in self.clipped() if knob in CLIP_RATIOS else bool(self.read(ACTS_ON[knob]))

    def _decide(self, controller: Controller, state: TrainerState) -> None:
        signal = self.read(controller.signal) if controller.law.uses_target else None
        if signal is not None and not math.isfinite(signal):
            raise ValueError(
                f"{controller.signal} was {signal} at step {state.global_step}, so there is nothing to control. If it "
                "is an entropy, the policy's logits are not finite: resume from an earlier checkpoint with a smaller "
                "learning_rate"
            )
        progress = state.global_step / state.max_steps
        controller.update(signal, progress, state.epoch, _num_epochs(state), self.rollout_ends())
        self.knobs[controller.knob.name] = controller.value
        self.log(controller.metrics())


class LearningRateScale(TrainerCallback):
    """
    Multiply the learning rate during each optimizer step; schedule, checkpoint and log keep the configured one.

    Attributes:
        value (`float`): The current factor.
    """

    def __init__(self):
        self.value = 1.0
        self._rates: list[float] = []

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        groups = kwargs["optimizer"].param_groups
        self._rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.value

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        for group, rate in zip(kwargs["optimizer"].param_groups, self._rates, strict=True):
            group["lr"] = rate


class EntropyCallback(Attached, EntropyController):
    """
    A controller for a plain [`~trl.GRPOTrainer`], on one of TRL's own knobs.

    It reads the `entropy` that TRL logs. With one micro-batch per optimizer step this is the mean over all tokens and
    ranks; with several it is the mean of the micro-batches' means. The callback's state is in the checkpoint's
    `trainer_state.json`.

    Args:
        law (`str`):
            Name of the law.
        knob (`str`):
            `epsilon_low`, `epsilon_high` or `entropy_coef`.
        name (`str`, *optional*):
            Metrics are under `controllers/<name>`. By default the knob's name.
        settings:
            The other settings of an entry in the config's `controllers`: `target` or `target_ratio` (a law with a
            target needs one of them here), `initial`, `low`, `high`, `signal` (entropy, or one that TRL logs),
            `cadence`, `start_steps`, `raises_signal`, and the law's parameters.

    Raises `ValueError` for a knob that plain TRL does not have, and at the start of training if `attach` was not
    called.
    """

    def __init__(self, law: str, knob: str, name: str | None = None, **settings):
        names = [known.name for known in TRL_KNOBS]
        if knob not in names:
            raise ValueError(
                f"on a plain GRPOTrainer knob must be {', '.join(names[:-1])} or {names[-1]}, got {knob!r}: the knobs "
                "of rules need an EntropyGRPOTrainer, with controllers in its config"
            )
        signal = settings.get("signal", ENTROPY)
        if signal not in TRL_SIGNALS:
            raise ValueError(
                f"on a plain GRPOTrainer signal must be one of {', '.join(TRL_SIGNALS)}, got {signal!r}: the others "
                "need an EntropyGRPOTrainer, with controllers in its config"
            )
        uses_target = has_target(law_factory(f"controllers.{knob if name is None else name}", law))
        if uses_target and not {"target", "target_ratio"} & settings.keys():
            raise ValueError(f"the {law} law needs target (nats) or target_ratio (share of the starting entropy)")
        self.name = knob if name is None else name
        self.spec = {"law": law, "knob": knob, **settings}
        super().__init__(
            controllers=[],
            knobs=Knobs(),
            read=lambda signal: logged_signal(self.attached(), signal),
            log=lambda means: log_means(self.attached(), means),
            rollout_ends=lambda: rollout_ends(self.attached()),
            clipped=lambda: clipped_bounds(self.attached()),
        )

    def __str__(self) -> str:
        return f"the callback of {self.spec['knob']}"

    def take(self, trainer: Trainer) -> None:
        """Take the knob from a trainer. Raises `ValueError` for wrong settings, or beside other control of entropy."""
        self._check(trainer)
        knobs = {knob.name: knob for knob in knobs_of_trl(trainer)}
        values = {name: getattr(trainer, name) for name in knobs}
        given = clip_range_given(trainer.args)
        lacks = family_of(type(trainer)).lacks_in_words
        self.controllers = build_controllers({self.name: self.spec}, knobs, values, given=given, lacks=lacks)
        self.knobs = trl_knobs(trainer)
        if trainer.accelerator.is_main_process:
            announce(trainer.args, self.controllers)

    def _check(self, trainer: Trainer) -> None:
        if has_control(trainer):
            raise ValueError(
                "an EntropyGRPOTrainer does not need this callback: "
                f"set controllers={{{self.name!r}: {self.spec}}} in its config instead of attaching one"
            )
        family = family_of(type(trainer))
        check_signal_of(f"{self}", self.spec.get("signal", ENTROPY), family)
        check_clip_acts(f"{self}", self.spec, trainer.args, family)
        if getattr(trainer, "use_adaptive_entropy", False):
            raise ValueError(
                f"use_adaptive_entropy (TRL's controller of entropy_coef) and the callback of {self.spec['knob']} "
                "would both steer entropy: keep one of them"
            )
        others = [other for other in trainer.callback_handler.callbacks if isinstance(other, EntropyCallback)]
        for other in (other for other in others if other is not self):
            if other.spec["knob"] == self.spec["knob"]:
                raise ValueError(f"two callbacks have the knob {self.spec['knob']!r}: keep one of them")
            if other.name == self.name:
                raise ValueError(f"two callbacks have the name {self.name!r}: rename one of them")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.attached()
        # Not through ExportableState: restoring one makes a new callback, which would not be attached to a trainer
        saved = state.stateful_callbacks.get(self._key)
        if saved is None and state.global_step > 0:
            raise ValueError(
                f"the checkpoint of step {state.global_step} has no state of {self._key}: resume with the same "
                "callbacks as in that run"
            )
        (controller,) = self.controllers
        if saved is not None:
            controller.load_state_dict(saved, SOURCE)
        super().on_train_begin(args, state, control, **kwargs)
        state.stateful_callbacks[self._key] = controller.state_dict()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        (controller,) = self.controllers
        knob = controller.knob.name
        self.log({f"knobs/{knob}": self.knobs[knob]})  # the value in the completed step
        super().on_step_end(args, state, control, **kwargs)
        state.stateful_callbacks[self._key] = controller.state_dict()

    @property
    def _key(self) -> str:
        return f"controllers/{self.name}"


def announce(args: TrainingArguments, controllers: Iterable[Controller]) -> None:
    """Log, before a run, what its controllers do and which values are unusual."""
    warn_if_untested(installed_trl())
    warn_of_cut_sampling(args)
    for controller in controllers:
        logger.info("controller %s", controller)


def knobs_of_trl(trainer: Trainer) -> list[Knob]:
    """The trainer's knobs that are TRL's own."""
    return [knob for knob in TRL_KNOBS if knob.name not in family_of(type(trainer)).lacks]


def trl_knobs(trainer: Trainer) -> Knobs:
    """TRL's own knobs of a trainer, to read and to turn."""
    knobs = Knobs()
    for knob in knobs_of_trl(trainer):
        write = partial(setattr, trainer, knob.name)
        if knob.name == "entropy_coef":
            write = partial(set_entropy_coef, trainer)
        knobs.add(knob, partial(getattr, trainer, knob.name), write)
    return knobs


def all_knobs(trainer: Trainer, scale: LearningRateScale) -> Knobs:
    """All knobs of a trainer with entropy control: TRL's own, the temperature, and the rules' parameters."""
    knobs, next_temperature = trl_knobs(trainer), partial(setattr, trainer.seam, "next_temperature")
    if TEMPERATURE not in trainer.family.lacks:
        knobs.add(TEMPERATURE_KNOB, partial(getattr, trainer, TEMPERATURE), next_temperature)
    knobs.add(SCALE_KNOB, partial(getattr, scale, "value"), partial(setattr, scale, "value"))
    knobs.add_rules(trainer.args.control.knobs.values(), trainer.rules.sections)
    return knobs


def _num_epochs(state: TrainerState) -> int:
    return math.ceil(state.num_train_epochs)
