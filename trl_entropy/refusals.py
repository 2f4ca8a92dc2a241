"""Refuse, before a model loads, settings that exclude each other or would do nothing in a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import inf
from numbers import Integral, Real
from typing import Any

import torch
from datasets import Dataset, IterableDataset

from .checks import check_number, unknown
from .control.controller import Controller
from .control.knobs import LEARNING_RATE_SCALE, TEMPERATURE, acting
from .control.signals import needs_clipping
from .families import UNCLIPPED, Family
from .measures import LEVELS
from .objective import ON_ADVANTAGES
from .rollouts import RolloutRule
from .rollouts.rule import check_sources
from .rules.compose import needs
from .rules.rule import Rule


POOLING = ("exact", "lagged")
# The rules by name, by the flag that configures them
Sections = Mapping[str, Mapping[str, Rule]]


# The range of flags that TRL itself does not check: it would fail later, or train on nonsense
RANGES = {**dict.fromkeys(("beta", "epsilon", "epsilon_high", "learning_rate"), (0.0, inf)), "top_p": (0.0, 1.0)}
COUNTS = (
    *("num_iterations", "steps_per_generation", "gradient_accumulation_steps", "per_device_train_batch_size"),
    "max_completion_length",
)


def check_numbers(args: Any) -> None:
    """Refuse numbers of TRL's flags that are out of range."""
    for name, (low, high) in RANGES.items():
        value = getattr(args, name, None)
        if isinstance(value, Real) and value != high:  # transformers turns a string into a number
            check_number(name, float(value), low, high)
    for name in COUNTS:
        value = getattr(args, name, None)
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def check_family(args: Any, sections: Sections, rollouts: Mapping[str, RolloutRule]) -> None:
    """Refuse rules that do not fit this trainer's loss."""
    family = args.family
    rules = {f"{section}.{name}": rule for section, found in sections.items() for name, rule in found.items()}
    of_rollouts = {f"rollout_rules.{name}": {f"acts.{what}" for what in rule.acts} for name, rule in rollouts.items()}
    for name, wanted in ({name: rule.needs for name, rule in rules.items()} | of_rollouts).items():
        for missing in sorted(wanted & family.lacks.keys()):
            raise ValueError(f"{name} does not work with {family.name}: {family.lacks[missing]}. Drop it")
    clipped = [name for name, rule in rules.items() if "clipped" in rule.needs]
    if clipped and family.has_loss_types and args.loss_type in UNCLIPPED:
        raise ValueError(
            f"{', '.join(clipped)} acts on tokens whose gradient the clip range has stopped, and "
            f"loss_type={args.loss_type!r} never stops one: set another loss_type, or drop it"
        )
    for name, rule in rules.items():
        _check_room(name, rule, args)
    for flag, why in family.idle.items():
        if getattr(args, flag, None):
            raise ValueError(f"{flag} would do nothing in {family.name}: {why}. Drop it")
    if family.packed:
        return
    if not family.per_token:
        where, instead = f"{family.name}", "use GRPOTrainer"
        sections = {name: sections[name] for name in ON_ADVANTAGES}
    elif args.importance_sampling_level == "sequence":
        where, instead = "importance_sampling_level='sequence'", "set importance_sampling_level='token'"
    else:
        return
    selective = [name for found in sections.values() for name, rule in found.items() if rule.token_selective]
    if selective:
        raise ValueError(
            f"{', '.join(selective)} select tokens, but with {where} only the mean weight of a sequence acts: "
            f"{instead} or drop them"
        )


def _check_room(name: str, rule: Rule, args: Any) -> None:
    """Refuse a rule that TRL's settings leave no room for: a narrower clip, or groups that are too small."""
    if rule.neutral:
        return
    if args.num_generations < rule.least_generations:
        raise ValueError(
            f"{name} needs groups of {rule.least_generations} completions: {rule} with num_generations="
            f"{args.num_generations}. Raise num_generations"
        )
    given = args.epsilon, args.epsilon if args.epsilon_high is None else args.epsilon_high
    clips = args.family.has_loss_types and args.loss_type not in UNCLIPPED
    if clips and any(have < least - 1e-9 for have, least in zip(given, rule.least_clip_range, strict=True)):
        low, high = rule.least_clip_range
        raise ValueError(
            f"{name} has its own bounds, and TRL would clip before they act, with epsilon={given[0]:g} and "
            f"epsilon_high={given[1]:g}: set epsilon to at least {low:g} and epsilon_high to at least {high:g}"
        )


def check_controllers(args: Any, sections: Sections, controllers: Sequence[Controller]) -> None:
    """Refuse controllers beside another entropy controller, and those whose knob can do nothing in this run."""
    if controllers and getattr(args, "use_adaptive_entropy", False):
        names = ", ".join(f"controllers.{controller.name}" for controller in controllers)
        raise ValueError(
            f"use_adaptive_entropy (TRL's controller of entropy_coef) and {names} would both steer entropy: keep "
            "one of them"
        )
    _check_replaced_advantage(args, sections, controllers)
    reach: dict[tuple[str, str], dict[str, list[float]]] = {}
    for controller in controllers:
        what, knob = f"controllers.{controller.name}", controller.knob
        check_signal_of(what, controller.signal, args.family)
        check_clip_acts(what, args.controllers[controller.name], args, args.family)
        if knob.name == LEARNING_RATE_SCALE and args.learning_rate == 0:
            raise ValueError(f"{what} would do nothing: it scales learning_rate=0. Set a learning_rate")
        if knob.name == TEMPERATURE and TEMPERATURE in (args.generation_kwargs or {}):
            raise ValueError(
                f"generation_kwargs sets temperature={args.generation_kwargs[TEMPERATURE]!r}, but a controller turns "
                "the temperature: drop it there"
            )
        if knob.rule:
            reach.setdefault((knob.section, knob.rule), {})[knob.parameter] = controller.reach()
    for (section, name), values in reach.items():
        rule, what = sections[section][name], " and ".join(values)
        settings = (dict(zip(values, point, strict=True)) for point in product(*values.values()))
        if all(replace(rule, **point).neutral for point in settings):
            raise ValueError(
                f"a controller of {section}.{name}.{what} would do nothing: {rule} leaves the loss unchanged for "
                f"every value of {what}. Set the rule's other parameters"
            )


def _check_replaced_advantage(args: Any, sections: Sections, controllers: Sequence[Controller]) -> None:
    """Refuse settings that act on TRL's advantage beside a bonus that replaces it."""
    turned = [controller.knob for controller in controllers]
    bonuses, weights = (
        acting(section, sections[section], turned) for section in ("advantage_bonuses", "token_weights")
    )
    replacing = sorted(name for name, bonus in bonuses.items() if bonus.replaces_advantage)
    if not replacing:
        return
    if len(replacing) > 1:
        raise ValueError(f"{' and '.join(replacing)} each replace TRL's advantage: keep one of them")
    what = f"advantage_bonuses.{replacing[0]} replaces TRL's advantage"
    if weights:
        raise ValueError(
            f"{what}, which {', '.join(sorted(weights))} in token_weights would multiply: drop {replacing[0]} or them"
        )
    if getattr(args, "beta", 0) > 0 and "ref_logps" in args.family.lacks:
        raise ValueError(f"{what}, and with {args.family.name} that includes the KL penalty: set beta=0, or drop it")


def check_needs(args: Any, sections: Sections) -> None:
    """Refuse rules that read facts this run does not have."""
    needed = needs(*sections.values())
    if args.pooling not in POOLING:
        raise unknown("pooling", args.pooling, POOLING)
    if args.entropy_measures not in LEVELS:
        raise unknown("entropy_measures", args.entropy_measures, LEVELS)
    misaligned = not args.family.packed and args.steps_per_generation % args.gradient_accumulation_steps
    if "pool" in needed and args.pooling == "exact" and misaligned:
        raise ValueError(
            "rules with statistics over the optimizer step need all its micro-batches at the start, but "
            f"steps_per_generation={args.steps_per_generation} is not a multiple of "
            f"gradient_accumulation_steps={args.gradient_accumulation_steps}: make it one, or set pooling=lagged"
        )
    if "ref_logps" in needed and args.beta == 0.0:
        raise ValueError("a rule needs the reference policy, which TRL only loads with beta > 0: set beta > 0")


def check_rollouts(args: Any, rules: Mapping[str, RolloutRule]) -> None:
    """Refuse rollout rules that the sampling engine cannot follow."""
    decides = {what: name for name, rule in rules.items() for what in rule.acts}
    if "temperatures" in decides and (args.use_vllm or args.use_transformers_continuous_batching):
        raise ValueError(
            f"rollout_rules.{decides['temperatures']} sets a temperature for each prompt in the policy's own forward "
            "pass, which vLLM and continuous batching do not use: set use_vllm=False and "
            "use_transformers_continuous_batching=False, or drop it"
        )
    if "completions" in decides and args.use_vllm and args.vllm_importance_sampling_correction:
        raise ValueError(
            f"rollout_rules.{decides['completions']} puts completions into the batch that vLLM did not sample, so "
            "they have no log-probs to correct with: set vllm_importance_sampling_correction=False"
        )


def check_dropped_groups(
    sections: Sections, controllers: Sequence[Controller], rollouts: Mapping[str, RolloutRule], solved: torch.Tensor
) -> None:
    """Refuse rules for all-correct groups if a group with these rewards `(G,)` is dropped before them."""
    turned = [controller.knob for controller in controllers]
    for section, rules in sections.items():
        for name, of_tokens in acting(section, rules, turned).items():
            for dropping, rule in rollouts.items():
                # a single named reward function says whether an answer is correct, so it is 1 in such a group
                rewards = solved if rule.reward_func is None else torch.ones_like(solved)
                drops = "groups" in rule.acts and not rule.keep(rewards.unsqueeze(0)).all()
                if of_tokens.only_solved_groups and drops:
                    raise ValueError(
                        f"{section}.{name} acts on groups that are all correct, and rollout_rules.{dropping} drops "
                        "those groups: keep one of the two"
                    )


def check_rollout_fits(
    args: Any, dataset: Dataset | IterableDataset | None, more: Mapping[str, object] | None = None
) -> None:
    """
    Raise `ValueError` if one rollout batch needs more prompts than the dataset has.

    Also if a rollout rule does not fit `more`, the trainer's other arguments.
    """
    sources = ("tools", "rollout_func", "environment_factory")
    check_sources(args.control.rollout_rules, *((more or {}).get(name) for name in sources))
    if not isinstance(dataset, Dataset) or args.family.packed:  # a stream has no known length
        return
    needed, num_prompts = args.generation_batch_size // args.num_generations, len(dataset)
    if num_prompts < needed:
        raise ValueError(
            f"a rollout batch needs {needed} prompts (generation_batch_size={args.generation_batch_size}, "
            f"num_generations={args.num_generations}), but the dataset has {num_prompts}: lower off_policy_updates, "
            "steps_per_generation, gradient_accumulation_steps or per_device_train_batch_size, or raise "
            "num_generations"
        )


def check_clip_acts(what: str, spec: Mapping, args: Any, family: Family) -> None:
    """Raise `ValueError` if a controller's knob or signal depends on a clip that never acts."""
    why = family.never_clips(args)
    for name in (spec["knob"], spec.get("signal", "")):
        if why is not None and needs_clipping(name):
            raise ValueError(f"{what} would do nothing with {name}: {why}, or drop it")


def check_signal_of(what: str, signal: str, family: Family) -> None:
    """Raise `ValueError` if this trainer does not have a controller's signal."""
    if signal in family.lacks:
        raise ValueError(f"{what} cannot read {signal} in {family.name}: {family.lacks[signal]}. Set another signal")
