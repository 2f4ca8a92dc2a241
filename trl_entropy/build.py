"""Build the rules, controllers and trimming of a run from the flags of its config."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset, IterableDataset

from ._seam.fast_step import build_trimming
from ._seam.trimming import Trimming
from .checks import unknown
from .control.controller import Controller, build_controllers
from .control.knobs import TRAINER_KNOBS, Knob, rule_knobs
from .control.signals import MASS, rule_signal
from .data.columns import IMAGES
from .families import UNCLIPPED, clip_range_given
from .measures import Slopes, surrogate_slopes
from .refusals import (
    Sections,
    check_controllers,
    check_dropped_groups,
    check_family,
    check_needs,
    check_rollouts,
)
from .rollouts import ROLLOUT_RULES, RolloutPlan, RolloutRule
from .rollouts.rule import check_answers, given_images
from .rules.bonuses import BONUSES
from .rules.compose import build
from .rules.rule import Rule
from .rules.terms import TERMS
from .rules.weights import WEIGHTS


# The bundled rules, by the flag that configures them
SECTIONS: dict[str, Mapping[str, type[Rule]]] = {
    "token_weights": WEIGHTS,
    "advantage_bonuses": BONUSES,
    "loss_terms": TERMS,
}


@dataclass(frozen=True)
class Control:
    """
    The rules, controllers and trimming of a run, built from its flags and checked.

    Args:
        token_weights, advantage_bonuses, loss_terms (`Mapping[str, Rule]`):
            The rules by name.
        rollout_rules (`Mapping[str, RolloutRule]`):
            The rules on what is sampled, by name.
        knobs (`Mapping[str, Knob]`):
            The numbers of the rules that a law may turn, by name.
        controllers (`tuple[Controller, ...]`):
            The controllers at the start of a run. They have state, so a run takes `fresh_controllers()`.
        trimming ([`Trimming`]):
            What is left out of an optimizer step.
    """

    token_weights: Mapping[str, Rule]
    advantage_bonuses: Mapping[str, Rule]
    loss_terms: Mapping[str, Rule]
    rollout_rules: Mapping[str, RolloutRule]
    knobs: Mapping[str, Knob]
    controllers: tuple[Controller, ...]
    trimming: Trimming

    @property
    def sections(self) -> dict[str, dict[str, Rule]]:
        """The rules on tokens by section, in new mappings."""
        return {section: dict(getattr(self, section)) for section in SECTIONS}

    def fresh_controllers(self) -> list[Controller]:
        """New controllers, which no run has used."""
        return deepcopy(list(self.controllers))


def build_control(args: Any) -> Control:
    """
    Build the `Control` of a config (`EntropyFlags`) and check it.

    Raises `ValueError` for an unknown name, a value out of range, or settings that exclude each other.
    """
    sections = {name: build(name, rules, _settings_with_flags(args, name, rules)) for name, rules in SECTIONS.items()}
    rollouts = build("rollout_rules", ROLLOUT_RULES, args.rollout_rules, RolloutRule)
    for name, rule in rollouts.items():
        check_answers(f"rollout_rules.{name}", rule)
    check_family(args, sections, rollouts)
    knobs = rule_knobs(sections)
    controllers = _controllers(args, sections, knobs)
    check_controllers(args, sections, controllers)
    _check_mass(args, controllers)
    check_needs(args, sections)
    check_rollouts(args, rollouts)
    # For any rewards of a group, as long as all are correct
    check_dropped_groups(sections, controllers, rollouts, torch.linspace(0.6, 1.0, args.num_generations))
    trimming = build_trimming(args, sections, controllers)
    return Control(**sections, rollout_rules=rollouts, knobs=knobs, controllers=tuple(controllers), trimming=trimming)


def _settings_with_flags(args: Any, section: str, catalogue: Mapping[str, type[Rule]]) -> dict:
    """The settings of a section in a config, together with the rules that have their own flags."""
    spec = dict(getattr(args, section))
    for name, rule in catalogue.items():
        flags = [key for key, parameter in rule.__dataclass_fields__.items() if parameter.metadata.get("flag")]
        if not flags:
            continue
        for key in spec.get(name) or {}:
            if key in flags:
                raise ValueError(f"{section}.{name}.{key} is the flag {key}: set it there")
        spec[name] = {**(spec.get(name) or {}), **{key: getattr(args, key) for key in flags}}
    return spec


def _controllers(args: Any, sections: Sections, turnable: Mapping[str, Knob]) -> list[Controller]:
    of_trainer = (knob for knob in (*TRAINER_KNOBS, *args.family.knobs) if knob.name not in args.family.lacks)
    knobs = {knob.name: knob for knob in of_trainer} | dict(turnable)
    values = {
        "temperature": args.temperature,
        "learning_rate_scale": 1.0,
        "epsilon_low": args.epsilon,
        "epsilon_high": args.epsilon if args.epsilon_high is None else args.epsilon_high,
        "entropy_coef": getattr(args, "entropy_coef", 0.0),
        **{knob.name: getattr(args, knob.name) for knob in args.family.knobs},
    }
    given = clip_range_given(args)
    for name, knob in turnable.items():
        values[name] = getattr(sections[knob.section][knob.rule], knob.parameter)
        if name != knob.parameter:  # no flag
            given[name] = knob.parameter in (getattr(args, knob.section).get(knob.rule) or {})
    targets = {"target": args.entropy_target, "target_ratio": args.entropy_target_ratio}
    signals = [rule_signal(section, name) for section, rules in sections.items() for name in rules]
    lacks = args.family.lacks_in_words
    return build_controllers(args.controllers, knobs, values, **targets, signals=signals, given=given, lacks=lacks)


def rollout_plan(
    args: Any, dataset: Dataset | IterableDataset | None, reward_funcs: Sequence[str] = ()
) -> RolloutPlan:
    """
    The plan of all rollout rules of a config, for the problems of a dataset and reward functions of these names.

    Raises `ValueError` if the dataset is a stream and a rule chooses problems, or if a rule names a column or reward
    function that does not exist.
    """
    control, rules = args.control, args.control.rollout_rules
    problems = dataset if isinstance(dataset, Dataset) else None
    columns = [] if problems is None else problems.column_names
    if len(reward_funcs) == 1:  # with several functions the rewards of right completions may differ
        check_dropped_groups(control.sections, control.controllers, rules, torch.ones(args.num_generations))
    for name, rule in rules.items():
        if rule.acts & {"problems", "groups"} and problems is None:
            raise ValueError(
                f"rollout_rules.{name} chooses among all problems, and the train dataset is a stream: load it "
                "without dataset_streaming, or drop the rule"
            )
        if rule.reward_func is not None and rule.reward_func not in reward_funcs:
            raise ValueError(f"{unknown('reward function', rule.reward_func, reward_funcs)} (in rollout_rules.{name})")
        for column in rule.columns:
            if problems is not None and column not in columns:
                raise ValueError(f"{unknown('dataset column', column, columns)} (in rollout_rules.{name})")
    if rules and {*IMAGES} & {*columns}:
        raise given_images(rules)
    number, read = (0, {}.__getitem__) if problems is None else (len(problems), problems.__getitem__)
    return RolloutPlan(rules, number, read, args.seed)


def _check_mass(args: Any, controllers: Sequence[Controller]) -> None:
    """Refuse a controller whose signal is a gradient mass that is not defined for this loss."""
    for controller in controllers:
        if controller.law.uses_target and controller.signal.startswith(MASS) and token_slopes(args) is None:
            raise ValueError(
                f"controllers.{controller.name} reads {controller.signal}, which is not measured here: it needs a "
                "loss that clips the ratio of every token. Choose another signal, or a GRPOTrainer without loss_type "
                "cispo, sapo or vespo, importance_sampling_level=sequence, top_entropy_quantile and "
                "off_policy_mask_threshold"
            )


def token_slopes(args: Any) -> Slopes | None:
    """The derivatives of this loss by the tokens' log-probs; `None` if it has another surrogate, or masks tokens."""
    if args.family.packed:
        return surrogate_slopes
    of_tokens = args.family.per_token and args.importance_sampling_level == "token"
    if not of_tokens or args.loss_type in UNCLIPPED:
        return None
    if args.top_entropy_quantile < 1.0 or args.off_policy_mask_threshold is not None:
        return None
    return partial(surrogate_slopes, delta=args.delta)
