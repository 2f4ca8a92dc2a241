"""The flags."""

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from importlib.resources import files
from itertools import product
from typing import ClassVar

import torch
import yaml
from datasets import Dataset, IterableDataset
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from ._seam.fast_step import build_compaction
from .checks import unknown
from .control.controller import Controller, build_controllers, without_target
from .control.knobs import LEARNING_RATE_SCALE, TEMPERATURE, TRAINER_KNOBS, acting, rule_knobs
from .control.signals import rule_signals
from .data.columns import IMAGES
from .measures import LEVELS, Slopes, surrogate_slopes
from .rollouts import ROLLOUT_RULES, RolloutPlan, RolloutRule
from .rollouts.rule import check_answers, check_sources, given_images
from .rules.bonuses import BONUSES
from .rules.compose import build, needs
from .rules.rule import Rule
from .rules.terms import TERMS
from .rules.weights import WEIGHTS
from .trainers import GRPO, UNCLIPPED, Family, base_in_trl, check_clip_acts, clip_range_given, family_of


logger = logging.getLogger(__name__)

# What a rule may be, by the flag that configures it
SECTIONS = {"token_weights": WEIGHTS, "advantage_bonuses": BONUSES, "loss_terms": TERMS}
POOLING = ("exact", "lagged")
OFF = "none"  # of entropy_control
TARGETS = ("entropy_target", "entropy_target_ratio")
# Flags that act in a trainer of TRL too
READ_BY_TRL = ("entropy_target", "off_policy_updates")


def presets() -> dict[str, dict]:
    """The bundled YAML fragments that `entropy_control` names."""
    found = (
        file for file in files("trl_entropy.control").joinpath("presets").iterdir() if file.name.endswith(".yaml")
    )
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text()) for file in found}


def _merged(base: Mapping, top: Mapping) -> dict:
    """`base` with the entries of `top` put over it, mapping by mapping."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _mapping(name: str, value: Mapping | str | None) -> dict:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} must be a YAML mapping or a JSON object, got {value!r} ({error})") from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {value!r}")
    return dict(value)


@dataclass
class EntropyFlags:
    r"""
    A config of TRL with entropy control. With the defaults it trains exactly as TRL does.

    The asymmetric clip bounds (`epsilon`, `epsilon_high`), `num_iterations`, `entropy_coef` and
    `top_entropy_quantile` are TRL's own.

    Parameters:
        positive_advantage_coef (`float`, *optional*, defaults to `1.0`):
            Loss weight λ+ >= 0 of tokens with positive advantage. Below 1.0 it raises entropy.
        negative_advantage_coef (`float`, *optional*, defaults to `1.0`):
            Loss weight λ- >= 0 of tokens with negative advantage. Below 1.0 it lowers entropy.
        off_policy_updates (`int`, *optional*):
            Number N >= 1 of optimizer updates that each rollout batch gets, num_iterations included. Sets
            steps_per_generation = N * gradient_accumulation_steps / num_iterations.
        entropy_control (`str`, *optional*):
            Bundled method: hold (ours: a PI law on TRL's entropy bonus), entropy_guided, stage or epoch
            (Positive-Advantage Reweighting), entropic (EntroPIC), confident_sign (its law on a weight of ours),
            neg_to_pos (Dissecting Long-CoT), skywork (Skywork-OR1), mai_clip (MAI-Thinking-1), repo_r (REPO-R), aer
            (in the style of AER), prepo (PREPO), erpo (in the style of ERPO), offline_injection (Dissecting
            Long-CoT), or none. skywork, mai_clip, repo_r and aer bring a target of their own, if none is set.
        entropy_target (`float`, *optional*):
            Target > 0 of the controllers, and of TRL's use_adaptive_entropy, in nats per token. Where neither target
            flag is set, that of the bundled method, else TRL's 0.2.
        entropy_target_ratio (`float`, *optional*):
            The same for the controllers, as a share > 0 of the entropy of the first optimizer steps.
        token_weights (`dict` or `str`, *optional*):
            Loss weights per token: a mapping of names (or dotted paths of your own) to parameters, as JSON on the
            command line.
        advantage_bonuses (`dict` or `str`, *optional*):
            Bonuses per token, added to the weighted advantage: a mapping of names (or dotted paths of your own) to
            parameters, as JSON on the command line.
        loss_terms (`dict` or `str`, *optional*):
            Loss terms per token: a mapping of names (or dotted paths of your own) to parameters, as JSON on the
            command line.
        rollout_rules (`dict` or `str`, *optional*):
            What is sampled for training: a mapping of names (or dotted paths of your own) to parameters, as JSON on
            the command line.
        controllers (`dict` or `str`, *optional*):
            Controllers: a mapping of names of your choice to law, knob and settings, as JSON on the command line.
        pooling (`str`, *optional*, defaults to `"exact"`):
            Where rules take statistics over tokens (means, quantiles, largest values) from: exact is the whole
            optimizer step, on all ranks, for one more forward pass of each micro-batch if there are several; lagged
            is the step before, for nothing.
        entropy_measures (`str`, *optional*, defaults to `"basic"`):
            What is logged of every optimizer step: basic is what costs next to nothing; full also the
            entropy of the prompts and at temperature 1, the exact prediction of the change of entropy, and how much
            the answers of a group differ.
        trim_padding (`bool`, *optional*, defaults to `False`):
            Whether to cut off the padding that all rows of a micro-batch have. The gradient stays, up to rounding.
        sort_by_length (`bool`, *optional*, defaults to `False`):
            Whether to bring completions of similar length together in the micro-batches of an optimizer step. The
            gradient stays, up to rounding.
        skip_zero_advantage (`bool`, *optional*, defaults to `False`):
            Whether to leave completions without an advantage out of the backward pass. The gradient stays, up to
            rounding, and their entropy is measured all the same.
        fast_step (`bool`, *optional*, defaults to `False`):
            Whether to do all three.
        skip_lm_head_tokens (`bool`, *optional*, defaults to `False`):
            Whether to leave tokens without a gradient, as of weight 0, out of the backward pass of the LM head. The
            gradient stays, up to rounding.
        live_view (`bool`, *optional*, defaults to `False`):
            Whether to show the run in a panel in the terminal, in place of the progress bar.

    Raises `ValueError` for an unknown name, a value out of range, or settings that exclude each other.
    """

    family: ClassVar[Family] = GRPO

    positive_advantage_coef: float = field(
        default=1.0,
        metadata={"help": "Loss weight λ+ >= 0 of tokens with positive advantage. Below 1.0 it raises entropy."},
    )
    negative_advantage_coef: float = field(
        default=1.0,
        metadata={"help": "Loss weight λ- >= 0 of tokens with negative advantage. Below 1.0 it lowers entropy."},
    )
    off_policy_updates: int | None = field(
        default=None,
        metadata={
            "help": "Number N >= 1 of optimizer updates that each rollout batch gets, num_iterations included. Sets "
            "steps_per_generation = N * gradient_accumulation_steps / num_iterations."
        },
    )
    entropy_control: str | None = field(
        default=None,
        metadata={
            "help": "Bundled method: hold (ours: a PI law on TRL's entropy bonus), entropy_guided, stage or epoch "
            "(Positive-Advantage Reweighting), entropic (EntroPIC), confident_sign (its law on a weight of ours), "
            "neg_to_pos (Dissecting Long-CoT), skywork (Skywork-OR1), mai_clip (MAI-Thinking-1), repo_r (REPO-R), aer "
            "(in the style of AER), prepo (PREPO), erpo (in the style of ERPO), offline_injection (Dissecting "
            "Long-CoT), or none. skywork, mai_clip, repo_r and aer bring a target of their own, if none is set."
        },
    )
    entropy_target: float | None = field(
        default=None,
        metadata={
            "help": "Target > 0 of the controllers, and of TRL's use_adaptive_entropy, in nats per token. Where "
            "neither target flag is set, that of the bundled method, else TRL's 0.2."
        },
    )
    entropy_target_ratio: float | None = field(
        default=None,
        metadata={"help": "The same for the controllers, as a share > 0 of the entropy of the first optimizer steps."},
    )
    token_weights: dict | str | None = field(
        default=None,
        metadata={
            "help": "Loss weights per token: a mapping of names (or dotted paths of your own) to parameters, as JSON "
            "on the command line."
        },
    )
    advantage_bonuses: dict | str | None = field(
        default=None,
        metadata={
            "help": "Bonuses per token, added to the weighted advantage: a mapping of names (or dotted paths of your "
            "own) to parameters, as JSON on the command line."
        },
    )
    loss_terms: dict | str | None = field(
        default=None,
        metadata={
            "help": "Loss terms per token: a mapping of names (or dotted paths of your own) to parameters, as JSON "
            "on the command line."
        },
    )
    rollout_rules: dict | str | None = field(
        default=None,
        metadata={
            "help": "What is sampled for training: a mapping of names (or dotted paths of your own) to parameters, as "
            "JSON on the command line."
        },
    )
    controllers: dict | str | None = field(
        default=None,
        metadata={
            "help": "Controllers: a mapping of names of your choice to law, knob and settings, as JSON on the "
            "command line."
        },
    )
    pooling: str = field(
        default="exact",
        metadata={
            "help": "Where rules take statistics over tokens (means, quantiles, largest values) from: exact is the "
            "whole optimizer step, on all ranks, for one more forward pass of each micro-batch if there are several; "
            "lagged is the step before, for nothing."
        },
    )
    entropy_measures: str = field(
        default="basic",
        metadata={
            "help": "What is logged of every optimizer step: basic is what costs next to nothing; full "
            "also the entropy of the prompts and at temperature 1, the exact prediction of the change of entropy, and "
            "how much the answers of a group differ."
        },
    )
    trim_padding: bool = field(
        default=False,
        metadata={
            "help": "Whether to cut off the padding that all rows of a micro-batch have. The gradient stays, up to "
            "rounding."
        },
    )
    sort_by_length: bool = field(
        default=False,
        metadata={
            "help": "Whether to bring completions of similar length together in the micro-batches of an optimizer "
            "step. The gradient stays, up to rounding."
        },
    )
    skip_zero_advantage: bool = field(
        default=False,
        metadata={
            "help": "Whether to leave completions without an advantage out of the backward pass. The gradient stays, "
            "up to rounding, and their entropy is measured all the same."
        },
    )
    fast_step: bool = field(default=False, metadata={"help": "Whether to do all three."})
    skip_lm_head_tokens: bool = field(
        default=False,
        metadata={
            "help": "Whether to leave tokens without a gradient, as of weight 0, out of the backward pass of the LM "
            "head. The gradient stays, up to rounding."
        },
    )
    live_view: bool = field(
        default=False,
        metadata={"help": "Whether to show the run in a panel in the terminal, in place of the progress bar."},
    )

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.family = family_of(cls)

    def get_process_log_level(self) -> int:
        """
        transformers'; a trainer asks its config for it while it is made.

        Raises `TypeError` if that is a trainer of TRL, in which flags that are set would do nothing.
        """
        frame = inspect.currentframe().f_back
        while frame is not None and frame.f_locals.get("self") is self:
            frame = frame.f_back  # a subclass of the config asks first
        trainer = None if frame is None else frame.f_locals.get("self")
        of_trl = isinstance(trainer, Trainer) and base_in_trl(type(trainer)) is not None
        if of_trl and not isinstance(getattr(trainer, "family", None), Family):
            self._refuse_plain(type(trainer))
        return super().get_process_log_level()

    def _refuse_plain(self, cls: type) -> None:
        idle = [
            flag.name
            for flag in fields(EntropyFlags)
            if flag.name not in READ_BY_TRL and getattr(self, flag.name) not in (flag.default, {}, OFF)
        ]
        if idle:
            ours = "EntropyGRPOTrainer" if cls is GRPOTrainer else f"with_entropy_control({cls.__name__})"
            raise TypeError(f"{', '.join(idle)} would do nothing in a {cls.__name__}: use {ours}")

    def __post_init__(self):
        self._merge_preset()
        self._set_off_policy_updates()
        super().__post_init__()
        # Built once here so that a wrong value ends the run before a model loads
        sections = self.build_rules()
        self._check_family(sections)
        controllers = self.build_controllers()
        self._refuse_two_controls(controllers)
        self._check_replaced_advantage(sections, controllers)
        self._check_acts(sections, controllers)
        self._check_needs(needs(*sections.values()))
        rollouts = self.build_rollout_rules()
        self._check_rollouts(rollouts)
        self._of_solved_groups = self._acting_on_solved_groups(sections, controllers)
        # Whatever the rewards of a group are, as long as all are correct
        self._refuse_dropped_groups(rollouts, torch.linspace(0.6, 1.0, self.num_generations))
        self.compaction = build_compaction(self, sections, controllers)
        if TEMPERATURE in {controller.knob.name for controller in controllers}:
            self._check_temperature()

    def _check_family(self, sections: dict[str, dict[str, Rule]]) -> None:
        """Refuse rules that this trainer's loss has no place for."""
        family = self.family
        rules = {f"{section}.{name}": rule for section, found in sections.items() for name, rule in found.items()}
        rollouts = {f"rollout_rules.{name}": rule.acts for name, rule in self.build_rollout_rules().items()}
        for name, wanted in ({name: rule.needs for name, rule in rules.items()} | rollouts).items():
            for missing in sorted(wanted & family.lacks.keys()):
                raise ValueError(f"{name} is not for {family.name}: {family.lacks[missing]}. Drop it")
        clipped = [name for name, rule in rules.items() if "clipped" in rule.needs]
        if clipped and family.has_loss_types and self.loss_type in UNCLIPPED:
            raise ValueError(
                f"{', '.join(clipped)} is for tokens whose gradient the clip range has stopped, and loss_type="
                f"{self.loss_type!r} stops none: set another loss_type, or drop it"
            )
        if "entropy_coef" in family.lacks:
            for flag in ("entropy_coef", "use_adaptive_entropy"):
                if getattr(self, flag, False):
                    raise ValueError(f"{flag} would do nothing in {family.name}: {family.lacks['entropy_coef']}")
        if not family.per_token:
            where, instead = f"{family.name}", "use GRPOTrainer"
            sections = {name: sections[name] for name in ("token_weights", "advantage_bonuses")}
        elif self.importance_sampling_level == "sequence":
            where, instead = "importance_sampling_level='sequence'", "set importance_sampling_level='token'"
        else:
            return
        selective = [name for found in sections.values() for name, rule in found.items() if rule.token_selective]
        if selective:
            raise ValueError(
                f"{', '.join(selective)} select tokens, but with {where} only the mean weight of a sequence acts: "
                f"{instead} or drop them"
            )

    def _merge_preset(self) -> None:
        available = {OFF: {}, **presets()}
        chosen = OFF if self.entropy_control is None else self.entropy_control
        if chosen not in available:
            raise unknown("entropy_control", chosen, available)
        preset = available[chosen]
        for name in (*SECTIONS, "rollout_rules", "controllers"):
            setattr(self, name, _merged(preset.get(name, {}), _mapping(name, getattr(self, name))))
        if self.entropy_control == OFF:
            self._drop_settings_of_presets()
        self._settle_target(preset)

    def _drop_settings_of_presets(self) -> None:
        of_presets = {name for preset in presets().values() for name in preset.get("controllers", {})}
        for name, spec in list(self.controllers.items()):
            if name in of_presets and isinstance(spec, Mapping) and "law" not in spec:
                del self.controllers[name]
                logger.warning("controllers.%s sets what a bundled method does, and entropy_control is none", name)

    def _settle_target(self, preset: Mapping) -> None:
        """Leave the one target flag that is set; where none is and one is read, take the preset's, else TRL's."""
        given = {flag: getattr(self, flag) for flag in TARGETS if getattr(self, flag) is not None}
        if len(given) == 2:
            raise ValueError(
                f"entropy_target={self.entropy_target} (nats) and entropy_target_ratio={self.entropy_target_ratio} "
                "(share of the starting entropy) are both set: keep one of them"
            )
        holding = bool(without_target(self.controllers))
        adaptive = bool(getattr(self, "use_adaptive_entropy", False))
        for flag, value in given.items():
            if holding or (adaptive and flag == "entropy_target"):
                continue
            idle = (
                f"{flag}={value} has nothing to act on: set entropy_control to entropy_guided or entropic, or give "
                "controllers that have no target of their own, or drop it"
            )
            if flag != "entropy_target" and self.entropy_control != OFF:
                raise ValueError(idle)
            # TRL accepts its own flag where it does nothing, and control may be turned off over a recipe
            logger.warning("%s", idle)
        if not given and (holding or adaptive):
            of_preset = {flag: preset[flag] for flag in TARGETS if flag in preset}
            of_trl = {"entropy_target": getattr(super(), "entropy_target", None)}  # RLOOConfig has no such flag
            for flag, value in (of_preset or of_trl).items():
                setattr(self, flag, value)
        if adaptive and self.entropy_target is None:  # beside a ratio that is off
            self.entropy_target = super().entropy_target

    def _set_off_policy_updates(self) -> None:
        updates = self.off_policy_updates
        if updates is None:
            return
        if isinstance(updates, bool) or not isinstance(updates, int) or updates < 1:
            raise ValueError(f"off_policy_updates must be a whole number >= 1, got {updates!r}")
        if updates % self.num_iterations:
            raise ValueError(
                f"off_policy_updates={updates} cannot hold with num_iterations={self.num_iterations}: it counts all "
                "updates of a rollout batch, so it must be a multiple of num_iterations"
            )
        steps = updates * self.gradient_accumulation_steps // self.num_iterations
        if self.generation_batch_size is not None:
            raise ValueError(
                f"off_policy_updates={updates} and generation_batch_size={self.generation_batch_size} both set the "
                "size of the rollout batch: drop one of them"
            )
        if self.steps_per_generation not in (None, steps):
            raise ValueError(
                f"off_policy_updates={updates} needs steps_per_generation={steps} (with gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps} and num_iterations={self.num_iterations}), but "
                f"steps_per_generation={self.steps_per_generation} is set: drop one of them"
            )
        self.steps_per_generation = steps
        logger.info(
            "off_policy_updates=%d: steps_per_generation=%d, so each rollout batch is split into %d optimizer "
            "batches and passed over num_iterations=%d times",
            *(updates, steps, updates // self.num_iterations, self.num_iterations),
        )

    def _refuse_two_controls(self, controllers: list[Controller]) -> None:
        if controllers and getattr(self, "use_adaptive_entropy", False):
            names = ", ".join(f"controllers.{controller.name}" for controller in controllers)
            raise ValueError(
                f"use_adaptive_entropy (TRL's controller of entropy_coef) and {names} would both steer entropy: keep "
                "one of them"
            )

    def _check_replaced_advantage(self, sections: dict[str, dict[str, Rule]], controllers: list[Controller]) -> None:
        """Refuse what acts on TRL's advantage beside a bonus that puts another in its place."""
        turned = {controller.knob.name for controller in controllers}
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
                f"{what}, which {', '.join(sorted(weights))} in token_weights would multiply: drop {replacing[0]} or "
                "them"
            )
        if self.beta > 0 and "ref_logps" in self.family.lacks:
            raise ValueError(f"{what}, and {self.family.name} has its KL penalty there: set beta=0, or drop it")

    def _check_acts(self, sections: dict[str, dict[str, Rule]], controllers: list[Controller]) -> None:
        """Refuse controllers whose knob can do nothing in this run."""
        turned = {controller.knob.name: controller for controller in controllers}
        for controller in controllers:
            check_clip_acts(f"controllers.{controller.name}", self.controllers[controller.name], self, self.family)
        if LEARNING_RATE_SCALE in turned and self.learning_rate == 0:
            name = turned[LEARNING_RATE_SCALE].name
            raise ValueError(f"controllers.{name} would do nothing: it scales learning_rate=0. Set a learning_rate")
        for section, rules in sections.items():
            reach: dict[str, dict[str, list[float]]] = {}
            for name, (_, rule, parameter) in rule_knobs(section, rules).items():
                if name in turned:
                    reach.setdefault(rule, {})[parameter] = turned[name].reach()
            for rule, values in reach.items():
                settings = (dict(zip(values, point, strict=True)) for point in product(*values.values()))
                if all(replace(rules[rule], **point).neutral for point in settings):
                    what = " and ".join(values)
                    raise ValueError(
                        f"a controller of {section}.{rule}.{what} would do nothing: {rules[rule]} leaves the loss as "
                        f"it is, whatever {what}. Set its other numbers"
                    )

    def _check_needs(self, needed: set[str]) -> None:
        if self.pooling not in POOLING:
            raise unknown("pooling", self.pooling, POOLING)
        if self.entropy_measures not in LEVELS:
            raise unknown("entropy_measures", self.entropy_measures, LEVELS)
        misaligned = self.steps_per_generation % self.gradient_accumulation_steps
        if "pool" in needed and self.pooling == "exact" and misaligned:
            raise ValueError(
                f"rules with statistics over the optimizer step need all of its micro-batches at its start, but "
                f"steps_per_generation={self.steps_per_generation} is no multiple of gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps}: make it one, or set pooling=lagged"
            )
        if "ref_logps" in needed and self.beta == 0.0:
            raise ValueError("a rule needs the reference policy, which TRL loads with beta > 0 only: set beta > 0")

    def _check_rollouts(self, rules: dict[str, RolloutRule]) -> None:
        acting = {what: name for name, rule in rules.items() for what in rule.acts}
        if "temperatures" in acting and (self.use_vllm or self.use_transformers_continuous_batching):
            raise ValueError(
                f"rollout_rules.{acting['temperatures']} sets a temperature for each prompt in the policy's own "
                "forward pass, which vLLM and continuous batching do not use: set use_vllm=False and "
                "use_transformers_continuous_batching=False, or drop it"
            )
        if "completions" in acting and self.use_vllm and self.vllm_importance_sampling_correction:
            raise ValueError(
                f"rollout_rules.{acting['completions']} puts completions into the batch that vLLM has not sampled, so "
                "that there are no log-probs to correct by: set vllm_importance_sampling_correction=False"
            )

    def _acting_on_solved_groups(
        self, sections: dict[str, dict[str, Rule]], controllers: list[Controller]
    ) -> list[str]:
        turned = {controller.knob.name for controller in controllers}
        return [
            f"{section}.{name}"
            for section, rules in sections.items()
            for name, rule in acting(section, rules, turned).items()
            if rule.only_solved_groups
        ]

    def _refuse_dropped_groups(self, rollouts: dict[str, RolloutRule], solved: torch.Tensor) -> None:
        """Refuse rules for groups that are all correct where one with these rewards `(G,)` is dropped before them."""
        for name, rule in rollouts.items():
            # one reward function that is named says whether an answer is correct, so it is 1 in such a group
            rewards = solved if rule.reward_func is None else torch.ones_like(solved)
            if self._of_solved_groups and "groups" in rule.acts and not rule.keep(rewards.unsqueeze(0)).all():
                raise ValueError(
                    f"{self._of_solved_groups[0]} acts on groups that are all correct, and rollout_rules.{name} drops "
                    "those: drop one of the two"
                )

    def _check_temperature(self) -> None:
        if TEMPERATURE in (self.generation_kwargs or {}):
            raise ValueError(
                f"generation_kwargs sets temperature={self.generation_kwargs[TEMPERATURE]!r}, and a controller turns "
                "it: drop it there"
            )

    def build_rules(self) -> dict[str, dict[str, Rule]]:
        """The rules of every section, with those that have a flag of their own."""
        return {name: build(name, rules, self._with_flags(name, rules)) for name, rules in SECTIONS.items()}

    def build_rollout_rules(self) -> dict[str, RolloutRule]:
        """The rules about what is sampled."""
        rules = build("rollout_rules", ROLLOUT_RULES, self.rollout_rules, RolloutRule)
        for name, rule in rules.items():
            check_answers(f"rollout_rules.{name}", rule)
        return rules

    def build_rollout_plan(
        self, dataset: Dataset | IterableDataset | None, reward_funcs: Sequence[str] = ()
    ) -> RolloutPlan:
        """
        These rules together, for the problems of a dataset and reward functions of these names.

        Raises `ValueError` if the dataset is a stream and a rule chooses problems, or if there is no such column or
        reward function as a rule names.
        """
        rules = self.build_rollout_rules()
        if len(reward_funcs) == 1:  # the rewards of right completions are equal; with more of them they may differ
            self._refuse_dropped_groups(rules, torch.ones(self.num_generations))
        known = isinstance(dataset, Dataset)
        for name, rule in rules.items():
            if rule.acts & {"problems", "groups"} and not known:
                raise ValueError(
                    f"rollout_rules.{name} chooses among all problems, and the train dataset is a stream: load it "
                    "without dataset_streaming, or drop the rule"
                )
            if rule.reward_func is not None and rule.reward_func not in reward_funcs:
                raise ValueError(
                    f"{unknown('reward function', rule.reward_func, reward_funcs)} (in rollout_rules.{name})"
                )
            for column in rule.columns:
                if known and column not in dataset.column_names:
                    raise ValueError(
                        f"{unknown('dataset column', column, dataset.column_names)} (in rollout_rules.{name})"
                    )
        if rules and known and {*IMAGES} & {*dataset.column_names}:
            raise given_images(rules)
        return RolloutPlan(rules, len(dataset) if known else 0, lambda column: dataset[column], self.seed)

    def _with_flags(self, section: str, catalogue: Mapping[str, type[Rule]]) -> dict:
        spec = dict(getattr(self, section))
        for name, rule in catalogue.items():
            flags = [key for key, parameter in rule.__dataclass_fields__.items() if parameter.metadata.get("flag")]
            if not flags:
                continue
            for key in spec.get(name) or {}:
                if key in flags:
                    raise ValueError(f"{section}.{name}.{key} is the flag {key}: set it there")
            spec[name] = {**(spec.get(name) or {}), **{key: getattr(self, key) for key in flags}}
        return spec

    def build_slopes(self) -> Slopes | None:
        """The slopes of this loss by the log-probs of tokens; `None` if it has another surrogate, or masks tokens."""
        of_tokens = self.family.per_token and self.importance_sampling_level == "token"
        if not of_tokens or self.loss_type in UNCLIPPED:
            return None
        if self.top_entropy_quantile < 1.0 or self.off_policy_mask_threshold is not None:
            return None
        return partial(surrogate_slopes, delta=self.delta)

    def build_controllers(self) -> list[Controller]:
        """The controllers, at the start of the run."""
        knobs = {knob.name: knob for knob in TRAINER_KNOBS if knob.name not in self.family.lacks}
        values = {
            "temperature": self.temperature,
            "learning_rate_scale": 1.0,
            "epsilon_low": self.epsilon,
            "epsilon_high": self.epsilon if self.epsilon_high is None else self.epsilon_high,
            "entropy_coef": getattr(self, "entropy_coef", 0.0),
        }
        given = clip_range_given(self)
        sections = self.build_rules()
        for section, rules in sections.items():
            for name, (knob, rule_name, field_name) in rule_knobs(section, rules).items():
                knobs[name] = knob
                values[name] = getattr(rules[rule_name], field_name)
                if name != field_name:  # no flag
                    given[name] = field_name in (getattr(self, section).get(rule_name) or {})
        targets = {"target": self.entropy_target, "target_ratio": self.entropy_target_ratio}
        return build_controllers(
            self.controllers, knobs, values, **targets, signals=rule_signals(sections), given=given
        )


@dataclass
class EntropyGRPOConfig(EntropyFlags, GRPOConfig):
    """TRL's [`~trl.GRPOConfig`] with [`EntropyFlags`]."""


def with_flags(cls: type) -> type:
    """The class of a config of TRL, or a subclass of it, with [`EntropyFlags`]; the same one at every call."""
    if issubclass(cls, EntropyFlags):
        return cls
    return EntropyGRPOConfig if cls is GRPOConfig else _with_flags(cls)


@cache
def _with_flags(cls: type) -> type:
    def reduce(args, protocol):
        if type(args) is made:  # it has no name that could be imported, and a checkpoint holds its args
            return _restored, (cls, args.__getstate__())
        return super(made, args).__reduce_ex__(protocol)

    names = {"__doc__": f"[`{cls.__name__}`] with [`EntropyFlags`].", "__reduce_ex__": reduce}
    made = dataclass(type(f"Entropy{cls.__name__}", (EntropyFlags, cls), names))
    return made


def _restored(cls: type, state: dict) -> EntropyFlags:
    args = object.__new__(with_flags(cls))
    vars(args).update(state)
    return args


def check_rollout_fits(
    args: EntropyFlags, dataset: Dataset | IterableDataset | None, more: Mapping[str, object] | None = None
) -> None:
    """
    Raise `ValueError` if one rollout batch needs more distinct prompts than the dataset has.

    Also if a rule about it does not go with `more`, what the trainer is given besides.
    """
    sources = ("tools", "rollout_func", "environment_factory")
    check_sources(args.build_rollout_rules(), *((more or {}).get(name) for name in sources))
    if not isinstance(dataset, Dataset):  # the length of a stream is not known
        return
    needed, num_prompts = args.generation_batch_size // args.num_generations, len(dataset)
    if num_prompts < needed:
        raise ValueError(
            f"a rollout batch needs {needed} prompts (generation_batch_size={args.generation_batch_size}, "
            f"num_generations={args.num_generations}), but the dataset has {num_prompts}: lower off_policy_updates, "
            "steps_per_generation, gradient_accumulation_steps or per_device_train_batch_size, or raise "
            "num_generations"
        )
