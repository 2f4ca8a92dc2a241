"""Laws, signals and presets of one's own, by dotted path or file."""

import re
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import ClassVar, Final

import pytest
import torch
from toy import EntropyGiven, logged

from trl_entropy import EntropyCallback, EntropyGRPOConfig, Law, Tokens
from trl_entropy.checks import bind
from trl_entropy.rules import Rule
from trl_entropy.rules.terms import ConfidentSurrogate


SETTINGS = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
OWN = {"law": f"{__name__}.Doubling", "knob": "entropy_coef", "target": 9.0, "initial": 0.01}
OF_SURPRISE = {"law": "pi", "knob": "entropy_coef", "signal": f"{__name__}.surprise", "raises_signal": True}


@dataclass(frozen=True)
class Doubling(Law):
    """Double a knob while more is asked for."""

    uses_target: ClassVar[bool] = True

    factor: float = 2.0

    def __call__(self, value, memory, reading):
        return value * (self.factor if reading.error > 0 else 1 / self.factor), memory


class Abstract(Law):
    """Says nothing of a next value."""

    uses_target: ClassVar[bool] = True


def surprise(tokens: Tokens) -> torch.Tensor:
    return -tokens.logps


def one_number(tokens: Tokens) -> torch.Tensor:
    return tokens.logps.sum()


not_callable = 1.0


def config(**arguments) -> EntropyGRPOConfig:
    return EntropyGRPOConfig(**SETTINGS, **arguments)


def test_law_of_ones_own_turns_a_knob(run):
    trainer = run(controllers={"mine": {**OWN, "factor": 3.0}})
    assert logged(trainer, "knobs/entropy_coef") == pytest.approx([0.01, 0.03, 0.09])
    assert str(trainer.controllers[0]).startswith("mine: Doubling turns entropy_coef in [-inf, inf], from 0.27")


def test_law_of_ones_own_stands_on_a_plain_trainer(build):
    trainer = build(plain=True)
    EntropyCallback(**OWN).attach(trainer)
    trainer.train()
    assert logged(trainer, "knobs/entropy_coef") == pytest.approx([0.01, 0.02, 0.04])


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ("nowhere.Doubling", r"law in controllers\.mine 'nowhere\.Doubling' cannot be imported: No module named"),
        (f"{__name__}.surprise", r"must be a subclass of trl_entropy\.Law with uses_target and __call__"),
        (f"{__name__}.Abstract", r"must be a subclass of trl_entropy\.Law with uses_target and __call__"),
        ("doubling", r"unknown law in controllers\.mine 'doubling'"),
    ],
)
def test_law_that_is_none_is_refused(law, message):
    with pytest.raises(ValueError, match=message) as refused:
        config(controllers={"mine": {**OWN, "law": law}})
    assert "\n" not in str(refused.value)


class NotDecorated(Rule):
    strength: float = 1.0

    def __call__(self, tokens):
        return torch.full_like(tokens.entropies, self.strength)


@dataclass(frozen=True)
class NoFormula(Rule):
    strength: float = 1.0


@dataclass(frozen=True)
class Undeclared(Rule):
    """Reads a fact and does not say so; its parameter is a number, and no knob."""

    strength: float = 1.0

    def __call__(self, tokens):
        return self.strength * tokens.group_rewards.sum(-1, keepdim=True)


class NotDecoratedLaw(Doubling):
    other: float = 2.0


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("token_weights", {"NotDecorated": {"strength": 2.0}}, "write @dataclass(frozen=True) above the class NotD"),
        ("token_weights", {"NoFormula": {}}, "the class NoFormula does not define __call__: write it"),
        ("controllers", {"mine": {**OWN, "law": f"{__name__}.NotDecoratedLaw"}}, "write @dataclass(frozen=True) abo"),
    ],
)
def test_class_that_is_not_finished_is_refused(flag, value, message):
    named = {name if flag == "controllers" else f"{__name__}.{name}": given for name, given in value.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        config(**{flag: named})


class Whole(Doubling):
    """Not decorated, and complete."""

    NAME: Final = "whole"
    _seen: int = 0
    kind: ClassVar[str] = "law"


class OwnInit(Doubling):
    other: float

    def __init__(self, other: float = 2.0):
        object.__setattr__(self, "other", other)


@dataclass(frozen=True)
class ByName(Doubling):
    _: KW_ONLY
    other: float = 2.0


@dataclass(frozen=True)
class Initial(Doubling):
    other: InitVar[float] = 2.0


@dataclass(frozen=True)
class Required:
    factor: float


class Open:
    def __init__(self, **settings):
        self.settings = settings


@pytest.mark.parametrize(
    ("factory", "parameters"),
    [
        (Whole, {"factor": 3.0}),
        (OwnInit, {"other": 3.0}),
        (ByName, {"other": 3.0}),
        (Initial, {"other": 3.0}),
        (Required, {"factor": 3.0}),
        (Open, {"anything": 3.0}),
        (partial(Doubling, factor=1.0), {"factor": 3.0}),
    ],
)
def test_finished_class_is_made(factory, parameters):
    made = bind("mine", factory, parameters)
    assert isinstance(made, getattr(factory, "func", factory))


def test_parameter_without_a_value_is_named():
    with pytest.raises(ValueError, match="^mine has no value for factor: set it$"):
        bind("mine", Required, {})
    with pytest.raises(ValueError, match=re.escape("unknown parameter of mine 'f'. Did you mean 'factor'?")):
        bind("mine", Required, {"f": 1.0})


def test_parameter_that_is_no_knob_is_told():
    rule = f"token_weights.{__name__}.Undeclared"
    with pytest.raises(ValueError, match="; a rule of your own declares strength by trl_entropy.knob"):
        config(
            token_weights={f"{__name__}.Undeclared": {}},
            controllers={"mine": {"law": "pi", "knob": f"{rule}.strength", "target": 1.0}},
        )


def test_fact_that_a_rule_does_not_name_is_told(run):
    with pytest.raises(AttributeError, match=r"\(in token_weights\.test_own\.Undeclared; None unless .*group_rewards"):
        run(token_weights={f"{__name__}.Undeclared": {}})


class Seen(EntropyGiven):
    """Keeps the surprise at every trained token, step by step."""

    def observe(self, tokens, effective):
        super().observe(tokens, effective)
        found = self.__dict__.setdefault("seen", {}).setdefault(self.state.global_step, [])
        found.append(-tokens.logps[tokens.mask])


def test_signal_of_ones_own_is_a_mean_over_the_trained_tokens_of_the_step(run):
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer = run(trainer_class=Seen, controllers={"mine": {**OF_SURPRISE, "target": 2.0}}, **sizes)
    means = [torch.cat(trainer.seen[step]).double().mean().item() for step in range(3)]
    assert logged(trainer, OF_SURPRISE["signal"]) == pytest.approx(means, abs=1e-5)
    assert logged(trainer, "controllers/mine/error") == pytest.approx([2.0 - mean for mean in means], abs=1e-5)


def test_signal_that_is_no_value_per_token_is_refused(run):
    with pytest.raises(ValueError, match=r"one_number must return a value per token"):
        run(controllers={"mine": {**OF_SURPRISE, "signal": f"{__name__}.one_number", "target": 2.0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": f"{__name__}.nothing"}, r"signal in controllers\.mine '.*' cannot be imported: module"),
        ({"signal": f"{__name__}.not_callable"}, r"not_callable must be a function of tokens, got 1\.0"),
        ({"signal": f"{__name__}.Doubling"}, r"Doubling must be a function of tokens, got <class"),
        (
            {"raises_signal": None},
            r"we do not know whether a larger entropy_coef raises or lowers",
        ),
        ({"target": None}, r"target must be a number, got None"),
    ],
)
def test_signal_that_is_none_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(controllers={"mine": {**OF_SURPRISE, "target": 2.0, **changes}})


FRAGMENT = """
entropy_target: 0.4
loss_terms:
  confident_surrogate: {threshold: 0.9}
controllers:
  mine: {law: pi, knob: loss_terms.confident_surrogate.alpha, kp: 0.5}
"""


def test_preset_of_ones_own_is_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(FRAGMENT)
    made = config(entropy_control=str(tmp_path / "mine.yaml"), controllers={"mine": {"ki": 0.25}})
    assert made.control.loss_terms == {"confident_surrogate": ConfidentSurrogate(threshold=0.9)}
    (controller,) = made.control.controllers
    assert (controller.law.kp, controller.law.ki, controller.target.low) == (0.5, 0.25, 0.4)
    assert config(entropy_control=str(tmp_path / "mine.yaml"), entropy_target=0.2).entropy_target == 0.2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"entropy_control='.*mine\.yaml' cannot be read: No such file"),
        ("a: [", r"entropy_control='.*' is not YAML: while parsing"),
        ("[1]", r"entropy_control='.*' must be a mapping, got \[1\]"),
        ("token_weight: {}", r"unknown entry of .*mine\.yaml 'token_weight'\. Did you mean 'token_weights'\?"),
        ("controllers: 3", r"controllers in .*mine\.yaml must be a mapping, got 3"),
    ],
)
def test_preset_that_is_none_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as refused:
        config(entropy_control=str(tmp_path / "mine.yaml"))
    assert "\n" not in str(refused.value)
