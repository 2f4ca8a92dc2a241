"""A controller: one law on one knob, with its target and its state. It does not know the trainer."""

import inspect
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields

from ..checks import bind, check_number, check_saved, check_whole_number, damaged, unknown
from .knobs import TEMPERATURE, Knob
from .laws import LAWS, Law, Memory, Observation, has_target, law_factory
from .signals import AT_ONE, ENTROPY, check_signal, is_entropy
from .targets import Target, build_target


logger = logging.getLogger(__name__)

CADENCES = ("step", "rollout")


@dataclass
class Controller:
    """
    One law on one knob. The value that it sets after an optimizer step acts from the next step.

    Args:
        name (`str`):
            Its key in the config's `controllers`; its metrics are under `controllers/<name>`.
        law ([`~laws.Law`]):
            The formula for the next value, from the error or from the progress of the run.
        knob ([`Knob`]):
            The knob that it turns.
        raises_signal (`bool`):
            Whether a larger value of the knob raises the signal.
        low, high (`float`):
            Range to which the value is clipped.
        value (`float`):
            Current value; at construction, the starting value of every run.
        target ([`~targets.Target`], *optional*):
            The value to hold the signal at; `None` for a schedule.
        signal (`str`, *optional*, defaults to `"entropy"`):
            What is measured: one of [`~signals.SIGNALS`], the entropy of a rule's tokens, or the mean of your own
            function of tokens.
        cadence (`str`, *optional*, defaults to `"step"`):
            Whether the law acts after every optimizer step, or after the last step of a `"rollout"` batch, on the mean
            of the signal over its steps.
    """

    name: str
    law: Law
    knob: Knob
    raises_signal: bool
    low: float
    high: float
    value: float
    target: Target | None = None
    signal: str = ENTROPY
    cadence: str = "step"
    memory: Memory = field(default_factory=dict)
    # The sum of the signal and the number of steps, since the law last acted
    signal_sum: float = 0.0
    num_steps: int = 0
    # The law's last input
    current_target: float | None = None
    error: float | None = None

    def __post_init__(self):
        self._initial = self.value

    def __str__(self) -> str:
        """A description in one line."""
        law = next((name for name, of_law in LAWS.items() if of_law is type(self.law)), type(self.law).__name__)
        turns = f"turns {self.knob.name} in [{self.low:g}, {self.high:g}]"
        if self.target is None:
            settings = ", ".join(f"{each.name} {getattr(self.law, each.name)}" for each in fields(self.law))
            return f"{self.name}: {law}{f' ({settings})' if settings else ''} {turns}"
        unit = " nats" if is_entropy(self.signal) else ""
        often = ", once per rollout batch" if self.cadence == "rollout" else ""
        aim = f"to hold {self.signal} at {self.target.text(unit)}{often}"
        return f"{self.name}: {law} {turns}, from {self.value:g}, {aim}"

    def start(self, num_epochs: int) -> None:
        """Begin a run: forget the previous run, and set a schedule to its first value."""
        self.value, self.memory, self.signal_sum, self.num_steps = self._initial, {}, 0.0, 0
        self.current_target = self.error = None
        if self.target is not None:
            self.target.forget()
        if not self.law.uses_target:
            self._apply(Observation(error=0.0, progress=0.0, epoch=0.0, num_epochs=num_epochs))

    def update(
        self, signal: float | None, progress: float, epoch: float, num_epochs: int, rollout_ends: bool = True
    ) -> None:
        """Set the next value from the signal of the completed step; `None` if the step had no signal."""
        if not self.law.uses_target:
            self._apply(Observation(error=0.0, progress=progress, epoch=epoch, num_epochs=num_epochs))
            return
        if signal is not None:
            self.target.measure(signal)
            self.signal_sum, self.num_steps = self.signal_sum + signal, self.num_steps + 1
        if self.num_steps == 0 or (self.cadence == "rollout" and not rollout_ends):
            return
        signal = self.signal_sum / self.num_steps
        self.signal_sum, self.num_steps = 0.0, 0
        self.current_target = self.target.nearest(signal, progress)
        if self.current_target is None:
            return
        self.error = self.current_target - signal if self.raises_signal else signal - self.current_target
        if self.current_target != signal or self.target.low == self.target.high:  # within a band the knob rests
            self._apply(Observation(self.error, progress, epoch, num_epochs))

    def _apply(self, observation: Observation) -> None:
        value, self.memory = self.law(self.value, self.memory, observation._replace(low=self.low, high=self.high))
        self.value = min(self.high, max(self.low, value))

    def reach(self) -> list[float]:
        """The ends of its range; on a side without an end, one step away from the knob's start."""
        ends = ((self.low, -1), (self.high, 1))
        return [end if math.isfinite(end) else self._initial + side for end, side in ends]

    def metrics(self) -> dict[str, float]:
        """The target, the error and the starting signal, as far as they are known."""
        start = None if self.target is None else self.target.start
        values = {"target": self.current_target, "error": self.error, "start": start}
        return {f"controllers/{self.name}/{key}": value for key, value in values.items() if value is not None}

    def state_dict(self) -> dict:
        """The state for a checkpoint, ready for JSON."""
        state = {"knob": self.knob.name, "value": self.value, "memory": dict(self.memory)}
        if self.target is not None:
            state |= {"signal": self.signal, "total": self.signal_sum, "count": self.num_steps}
            state |= {"target": self.target.state_dict()}
        return state

    def load_state_dict(self, state: Mapping, source: str = "the checkpoint") -> None:
        """
        Restore the state from a checkpoint, with the value clipped to this controller's range.

        Raises `ValueError` if the state in `source` is damaged, belongs to another knob or signal, or lacks the
        starting signal that a relative target needs.
        """
        name = f"controllers.{self.name}"
        check_saved(source, state, {"knob": str, "value": float, "memory": {str: float}}, name)
        with_target = {"total": 0.0, "count": 0, "target": {}, **state}  # a schedule saves none of these
        check_saved(source, with_target, {"total": float, "count": int, "target": dict}, name)
        if not all(map(math.isfinite, (state["value"], with_target["total"], *state["memory"].values()))):
            raise damaged(source, f"{name} has a number that is not finite")
        if with_target["count"] < 0:
            raise damaged(source, f"{name}.count is {with_target['count']}")
        knob, signal = state["knob"], state.get("signal", self.signal)
        if knob != self.knob.name or (self.target is not None and signal != self.signal):
            raise ValueError(
                f"controller {self.name!r} turns {self.knob.name} by {self.signal}, but in the checkpoint it turned "
                f"{knob} by {signal}: resume with the same controllers"
            )
        self.value, self.memory = min(self.high, max(self.low, state["value"])), dict(state["memory"])
        self.law.check_start(self.value)
        self.current_target = self.error = None
        if self.target is not None:
            self.signal_sum, self.num_steps = with_target["total"], with_target["count"]
            self.target.load_state_dict(with_target["target"], f"controllers.{self.name} of {source}")


TARGETS = ("target", "target_ratio")
TARGET_OPTIONS = (*TARGETS, "start_steps", "signal", "cadence", "raises_signal")
OPTIONS = ("law", "knob", "low", "high", "initial", *TARGET_OPTIONS)
START_STEPS = 5


def without_target(specs: Mapping[str, Mapping]) -> list[str]:
    """The names of the controllers that need a target and do not set one themselves."""
    given = {name: spec for name, spec in specs.items() if isinstance(spec, Mapping) and "law" in spec}
    return [
        name
        for name, spec in given.items()
        if has_target(law_factory(f"controllers.{name}", spec["law"])) and not {*TARGETS} & spec.keys()
    ]


def build_controllers(
    specs: Mapping[str, Mapping],
    knobs: Mapping[str, Knob],
    values: Mapping[str, float],
    target: float | None = None,
    target_ratio: float | None = None,
    signals: Collection[str] = (),
    given: Mapping[str, bool] | None = None,
    lacks: Mapping[str, str] | None = None,
) -> list[Controller]:
    """
    Build the controllers from the config's mapping.

    Args:
        specs (`Mapping[str, Mapping]`):
            `{"guided": {"law": "bang_bang", "knob": "positive_advantage_coef", "target": 0.2, "step": 0.05}}`.
        knobs (`Mapping[str, Knob]`):
            The available knobs.
        values (`Mapping[str, float]`):
            The knobs' values in the config.
        target, target_ratio (`float`, *optional*):
            For the controllers of an entropy that set neither; `target_ratio` takes precedence.
        signals (`Collection[str]`, *optional*):
            The signals from rules, in addition to [`~signals.SIGNALS`].
        given (`Mapping[str, bool]`, *optional*):
            Whether the config sets a knob, where that is known; otherwise a value that differs from the default counts
            as set.
        lacks (`Mapping[str, str]`, *optional*):
            The knobs that the trainer does not have, each with `in TRAINER: why`.

    Raises `ValueError` for an unknown name, a value out of range, or two controllers on one knob.
    """
    if not isinstance(specs, Mapping):
        raise ValueError(f"controllers must be a mapping of names to settings, got {specs!r}")
    controllers: dict[str, Controller] = {}
    for name, spec in specs.items():
        what = f"controllers.{name}"
        if not isinstance(spec, Mapping):
            raise ValueError(f"{what} must be a mapping with law and knob, got {spec!r}")
        for key, known in (("law", LAWS), ("knob", knobs)):
            if key not in spec:
                raise ValueError(f"{what} has no {key}; available: {', '.join(known)}")
        factory = law_factory(what, spec["law"])
        if isinstance(spec["knob"], str) and spec["knob"] in (lacks or {}):
            raise ValueError(f"{what} cannot turn {spec['knob']} {lacks[spec['knob']]}. Set another knob")
        if not isinstance(spec["knob"], str) or spec["knob"] not in knobs:
            error = unknown(f"knob in {what}", spec["knob"], knobs)
            rule, _, parameter = str(spec["knob"]).rpartition(".")
            if not rule or "Did you mean" in str(error):
                raise error
            raise ValueError(f"{error}; a rule of your own declares {parameter} by trl_entropy.knob")
        knob = knobs[spec["knob"]]
        if knob.name in controllers:
            raise ValueError(
                f"controllers {controllers[knob.name].name!r} and {name!r} both turn {knob.name}: keep one of them"
            )
        parameters = {key: value for key, value in spec.items() if key not in OPTIONS}
        allowed = inspect.signature(factory).parameters
        for key in parameters:
            if key not in allowed:
                raise unknown(f"setting of {what}", key, (*OPTIONS, *allowed))
        law = bind(what, factory, parameters)
        low, high = spec.get("low", knob.low), spec.get("high", knob.high)
        for key in ("low", "high"):
            if key in spec:
                check_number(f"{what}.{key}", spec[key], knob.low, knob.high)
        if low >= high:
            raise ValueError(f"{what}: low must be below high, got low={low:g}, high={high:g}")
        controllers[knob.name] = Controller(
            name=name,
            law=law,
            knob=knob,
            low=low,
            high=high,
            value=_initial(what, law, knob, spec, values[knob.name], low, high, given or {}),
            **_target_settings(what, law, knob, spec, target, target_ratio, signals),
        )
    return list(controllers.values())


def _initial(
    what: str, law: Law, knob: Knob, spec: Mapping, configured: float, low: float, high: float, given: Mapping
) -> float:
    initial = spec.get("initial", configured)
    if "initial" in spec and not law.uses_target:
        raise ValueError(f"{what}: the {spec['law']} law is a schedule and takes no initial")
    is_set = given.get(knob.name, configured != knob.default)
    if is_set and (configured != initial or not law.uses_target):
        instead = f" and set {what}.initial" if law.uses_target else ""
        raise ValueError(
            f"{knob.name} is set to {configured:g}, but {what} decides its starting value: leave {knob.name} "
            f"unset{instead}"
        )
    check_number(f"{what}: the starting value of {knob.name}", initial, low, high)
    try:
        law.check_start(initial)
    except ValueError as error:
        raise ValueError(f"{error} (in {what})") from error
    return initial


def _target_settings(what: str, law: Law, knob: Knob, spec: Mapping, target, target_ratio, signals) -> dict:
    """The settings that only a law with a target has: signal, direction, target and cadence."""
    if not law.uses_target:
        given = [key for key in TARGET_OPTIONS if key in spec]
        if given:
            raise ValueError(f"{what}: the {spec['law']} law is a schedule and takes no {' or '.join(given)}")
        return {"raises_signal": True}
    signal, cadence = spec.get("signal", ENTROPY), spec.get("cadence", "step")
    check_signal(what, signal, signals)
    if cadence not in CADENCES:
        raise unknown(f"cadence in {what}", cadence, CADENCES)
    return {
        "raises_signal": _direction(what, knob, signal, spec),
        "target": _target(what, signal, spec, target, target_ratio),
        "signal": signal,
        "cadence": cadence,
    }


def _direction(what: str, knob: Knob, signal: str, spec: Mapping) -> bool:
    # A larger temperature raises the entropy at that temperature; its effect on the policy is unknown
    known = is_entropy(signal) and (knob.name, signal) != (TEMPERATURE, AT_ONE)
    raises_signal = spec.get("raises_signal", knob.raises_entropy if known else None)
    if not isinstance(raises_signal, bool):
        raise ValueError(
            f"{what}: we do not know whether a larger {knob.name} raises or lowers {signal}; set raises_signal to "
            f"true or false, got {raises_signal!r}"
        )
    return raises_signal


def _target(what: str, signal: str, spec: Mapping, target, target_ratio) -> Target:
    given = {key: spec[key] for key in TARGETS if key in spec}
    prefix = f"{what}."
    if len(given) == 2:
        raise ValueError(f"{what}: set either target or target_ratio (share of the starting signal), not both")
    if not is_entropy(signal) and "target" not in given:
        raise ValueError(f"{what}: the signal {signal} needs a target in the controller: entropy_target is in nats")
    if not given and target is None and target_ratio is None:
        raise ValueError(
            f"{what} has no target: set entropy_target (nats) or entropy_target_ratio, or target or target_ratio in "
            f"{what}"
        )
    if not given:
        given = {"target": target} if target_ratio is None else {"target_ratio": target_ratio}
        prefix = "entropy_"
    ((key, value),) = given.items()
    steps = spec.get("start_steps", START_STEPS)
    check_whole_number(f"{what}.start_steps", steps)
    if "start_steps" in spec and key == "target":
        raise ValueError(
            f"{what}.start_steps only applies to a target_ratio: drop it, or set target_ratio instead of target"
        )
    is_ratio = key == "target_ratio"
    return build_target(f"{prefix}{key}", value, is_ratio, steps if is_ratio else 1, positive=is_entropy(signal))


def states(controllers: list[Controller]) -> dict[str, dict]:
    """The state of every controller, by name."""
    return {controller.name: controller.state_dict() for controller in controllers}


def load_states(controllers: list[Controller], saved: dict[str, dict], source: str) -> None:
    """Restore all controllers. Raises `ValueError` if one has no state in `source`."""
    for controller in controllers:
        if controller.name not in saved:
            raise ValueError(
                f"{source} has no state of controller {controller.name!r} (it has: {', '.join(saved) or 'none'}): "
                "resume with the same controllers as in the checkpoint"
            )
        controller.load_state_dict(saved[controller.name], source)
    for name in saved.keys() - {controller.name for controller in controllers}:
        logger.warning("controller %r was on in the run that wrote %s, and is off in this one", name, source)
