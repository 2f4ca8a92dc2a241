"""Floor 2: one law on one knob, with its target and its state. Knows no trainer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from .compose import bind, unknown
from .knobs import Knob
from .laws import LAWS, Law, Memory, Reading
from .tokens import check_number


@dataclass
class Controller:
    """
    One law on one knob. The value decided after an optimizer step is used from the next.

    Args:
        name (`str`):
            Its key in the config's `controllers`; metrics stand under `controllers/<name>`.
        law ([`~laws.Law`]):
            How the next value follows from the error or from the progress of the run.
        knob ([`Knob`]):
            What it turns.
        raises_entropy (`bool`):
            Whether a larger value of the knob raises entropy.
        low, high (`float`):
            Range to which the value is clipped.
        value (`float`):
            Value in force; at construction, the one the run starts with.
        target (`float`, *optional*):
            Nats per token. `None` for a schedule, or until `target_ratio` has been resolved.
        target_ratio (`float`, *optional*):
            Target as a share of the starting entropy, which is measured at the first optimizer step.
    """

    name: str
    law: Law
    knob: Knob
    raises_entropy: bool
    low: float
    high: float
    value: float
    target: float | None = None
    target_ratio: float | None = None
    memory: Memory = field(default_factory=dict)
    error: float | None = None
    started: bool = False

    def start(self, num_epochs: int) -> None:
        """Bring a schedule to its first value; once per run, not again after a resume."""
        if not self.started and not self.law.uses_target:
            self._apply(Reading(error=0.0, progress=0.0, epoch=0.0, num_epochs=num_epochs))
        self.started = True

    def update(self, entropy: float, progress: float, epoch: float, num_epochs: int) -> None:
        """Decide the next value from the entropy (nats) of the step that has ended."""
        if self.law.uses_target:
            if self.target is None:
                self.target = self.target_ratio * entropy
            self.error = self.target - entropy if self.raises_entropy else entropy - self.target
        self._apply(Reading(self.error or 0.0, progress, epoch, num_epochs))

    def _apply(self, reading: Reading) -> None:
        value, self.memory = self.law(self.value, self.memory, reading._replace(low=self.low, high=self.high))
        self.value = min(self.high, max(self.low, value))

    def state_dict(self) -> dict:
        """What a checkpoint must hold, JSON as it stands."""
        return {"knob": self.knob.name, "value": self.value, "memory": dict(self.memory), "target": self.target}

    def load_state_dict(self, state: Mapping) -> None:
        """Continue from a checkpoint. Raises `ValueError` if it was written for another knob."""
        if state["knob"] != self.knob.name:
            raise ValueError(
                f"controller {self.name!r} turns {self.knob.name}, but in the checkpoint it turned {state['knob']}: "
                "resume with the same controllers"
            )
        self.value, self.memory, self.started = state["value"], dict(state["memory"]), True
        if self.target_ratio is not None:
            self.target = state["target"]


OPTIONS = ("law", "knob", "target", "target_ratio", "low", "high", "initial", "raises_entropy")


def build_controllers(
    specs: Mapping[str, Mapping],
    knobs: Mapping[str, Knob],
    values: Mapping[str, float],
    target: float | None = None,
    target_ratio: float | None = None,
) -> list[Controller]:
    """
    Controllers from the config's mapping.

    Args:
        specs (`Mapping[str, Mapping]`):
            `{"guided": {"law": "bang_bang", "knob": "positive_advantage_coef", "target": 0.2, "step": 0.05}}`.
        knobs (`Mapping[str, Knob]`):
            The knobs there are.
        values (`Mapping[str, float]`):
            Where the config sets them.
        target, target_ratio (`float`, *optional*):
            For the controllers that give neither; `target_ratio` goes first.

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
            if spec[key] not in known:
                raise unknown(f"{key} in {what}", spec[key], known)
        knob = knobs[spec["knob"]]
        if knob.name in controllers:
            raise ValueError(
                f"controllers {controllers[knob.name].name!r} and {name!r} both turn {knob.name}: keep one of them"
            )
        law_class = LAWS[spec["law"]]
        parameters = {key: value for key, value in spec.items() if key not in OPTIONS}
        for key in parameters:
            if key not in {field.name for field in fields(law_class)}:
                raise unknown(f"setting of {what}", key, (*OPTIONS, *(field.name for field in fields(law_class))))
        law = bind(what, law_class, parameters)
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
            raises_entropy=_direction(what, law, knob, spec),
            low=low,
            high=high,
            value=_initial(what, law, knob, spec, values[knob.name], low, high),
            **_target(what, law, spec, target, target_ratio),
        )
    return list(controllers.values())


def _direction(what: str, law: Law, knob: Knob, spec: Mapping) -> bool:
    raises_entropy = spec.get("raises_entropy", knob.raises_entropy)
    if law.uses_target and not isinstance(raises_entropy, bool):
        raise ValueError(
            f"{what}: it is not known whether a larger {knob.name} raises or lowers entropy; "
            f"set raises_entropy to true or false, got {raises_entropy!r}"
        )
    return bool(raises_entropy)


def _initial(what: str, law: Law, knob: Knob, spec: Mapping, configured: float, low: float, high: float) -> float:
    initial = spec.get("initial", configured)
    if "initial" in spec and not law.uses_target:
        raise ValueError(f"{what}: the {spec['law']} law is a schedule and takes no initial")
    if configured not in (knob.default, initial) or (configured != knob.default and not law.uses_target):
        raise ValueError(
            f"{knob.name} is set to {configured:g}, but {what} decides where it starts: leave {knob.name} at its "
            f"default ({knob.default:g}), or set {what}.initial alone"
        )
    check_number(f"{what}: the starting value of {knob.name}", initial, low, high)
    try:
        law.check_start(initial)
    except ValueError as error:
        raise ValueError(f"{error} (in {what})") from error
    return initial


def _target(what: str, law: Law, spec: Mapping, target: float | None, target_ratio: float | None) -> dict:
    given = {key: spec[key] for key in ("target", "target_ratio") if key in spec}
    prefix = f"{what}."
    if not law.uses_target:
        if given:
            raise ValueError(f"{what}: the {spec['law']} law is a schedule and takes no {' or '.join(given)}")
        return {}
    if len(given) == 2:
        raise ValueError(f"{what}: give target (nats) or target_ratio (share of the starting entropy), not both")
    if not given:
        given = {"target": target} if target_ratio is None else {"target_ratio": target_ratio}
        prefix = "entropy_"
    for key, value in given.items():
        flag = f"{prefix}{key}"
        check_number(flag, value)
        if value <= 0:
            raise ValueError(f"{flag} must be > 0, got {value:g}")
    return given
