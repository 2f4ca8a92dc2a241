"""The trainers and the versions of TRL that the seam fits."""

import importlib
import importlib.metadata
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from math import exp, inf
from typing import Any

from packaging.version import Version
from transformers import Trainer

from .control.knobs import Knob
from .control.signals import needs_clipping


logger = logging.getLogger(__name__)

# Those that the tests are run on, from the oldest to the newest
TRL_VERSIONS = ("1.10.0", "1.13.0", "1.14.2", "1.16.0")

# What a `loss_type` of TRL does where the others clip ratios to [1 - epsilon_low, 1 + epsilon_high]
UNCLIPPED = {
    "cispo": "caps ratios at epsilon_high itself, with their gradient, and reads no epsilon_low",
    "sapo": "reads neither bound",
    "vespo": "reads neither bound",
}


@dataclass(frozen=True)
class Family:
    r"""
    How a trainer of TRL, and each of its subclasses, reads a batch and scales its loss.

    Args:
        name, config (`str`):
            The names of the two classes.
        homes (`tuple[str, ...]`, *optional*, defaults to `("trl",)`):
            The modules that may have them; the first that does counts.
        since (`str`, *optional*):
            The oldest TRL whose trainer of this name is meant.
        per_token (`bool`, *optional*, defaults to `True`):
            Whether it takes advantages `(B, T)`. Otherwise it gets `(B,)`: the mean over a completion's trained
            tokens.
        packed (`bool`, *optional*, defaults to `False`):
            Whether its batch is one row of packed tokens that others have sampled while it trained.
        scales_loss (`bool`, *optional*, defaults to `True`):
            Whether it divides its loss by `gradient_accumulation_steps` itself. Otherwise transformers does so
            afterwards.
        keeps_old_logps (`bool`, *optional*, defaults to `True`):
            Whether its batch has the log-probs of the old policy per token where the policy has moved since. Otherwise
            it has their sums, and the seam adds them.
        clips_logs (`bool`, *optional*, defaults to `False`):
            Whether `epsilon` bounds the logarithm of the ratio.
        loss_type (`str`, *optional*):
            The `loss_type` of `GRPOTrainer` that averages over tokens as this trainer does, which has no such choice.
        lacks (`Mapping[str, str]`, *optional*):
            What rules or controllers cannot have of it, and why: a knob, a signal, an entry of `Rule.needs`, or
            `acts.` and one of `RolloutRule.acts`.
        idle (`Mapping[str, str]`, *optional*):
            The flags that would do nothing, and why.
        knobs (`tuple[Knob, ...]`, *optional*):
            Knobs that it has besides TRL's; each has the name of a flag.
    """

    name: str
    config: str
    homes: tuple[str, ...] = ("trl",)
    since: str | None = None
    per_token: bool = True
    packed: bool = False
    scales_loss: bool = True
    keeps_old_logps: bool = True
    clips_logs: bool = False
    loss_type: str | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    idle: Mapping[str, str] = field(default_factory=dict)
    knobs: tuple[Knob, ...] = ()

    @property
    def has_loss_types(self) -> bool:
        """Whether its loss is the one that `loss_type` names."""
        return self.loss_type is None

    def trainer_class(self) -> type:
        """The trainer. Raises `ImportError` if the installed TRL has none."""
        return self._class(self.name)

    def config_class(self) -> type:
        """The config of the trainer. Raises `ImportError` if the installed TRL has none."""
        return self._class(self.config)

    def _class(self, name: str) -> type:
        for home in self.homes:
            try:
                module = importlib.import_module(home)
            except ModuleNotFoundError as error:
                if error.name is None or not home.startswith(error.name):
                    raise  # what TRL's file imports is missing
                continue
            if hasattr(module, name):
                return getattr(module, name)
        raise ImportError(f"TRL {installed_trl()} has no {name}: install trl>={self.since or TRL_VERSIONS[0]}")

    def clip_range(self, low: float, high: float, loss_type: str | None) -> tuple[float, float]:
        r"""Its bounds \\( \epsilon \\) as those of \\( [1 - \epsilon_{\text{low}}, 1 + \epsilon_{\text{high}}] \\)."""
        if self.has_loss_types and loss_type in UNCLIPPED:
            return 1.0, inf  # no gradient is stopped
        return (1 - exp(-low), exp(high) - 1) if self.clips_logs else (low, high)

    def never_clips(self, args) -> str | None:
        """Why TRL clips no ratio in a run of this config, and what to do about it; `None` if it does."""
        loss_type = getattr(args, "loss_type", None)
        if self.has_loss_types and loss_type in UNCLIPPED:
            return f"loss_type={loss_type!r} {UNCLIPPED[loss_type]}: set another loss_type"
        if self.packed:
            return None  # the policy moves while others sample
        accumulation, steps = args.gradient_accumulation_steps, args.steps_per_generation
        if accumulation % (steps * args.num_iterations):
            return None
        return (
            "each rollout batch gets one optimizer update, so ratios stay 1: set "
            f"num_iterations={2 * accumulation // steps} or steps_per_generation={2 * accumulation} "
            "(as off_policy_updates=2 does)"
        )


GRPO = Family("GRPOTrainer", "GRPOConfig")
_BONUS = ("entropy_coef", "use_adaptive_entropy")
_SAMPLED_ELSEWHERE = "a process of its own samples beside the training"
_PACKED = "TRL packs its batch without padding"
ASYNC_GRPO = Family(
    "AsyncGRPOTrainer",
    "AsyncGRPOConfig",
    homes=("trl", "trl.experimental.async_grpo"),
    since="1.16.0",  # before, the batch does not say which completion a token is of
    packed=True,
    loss_type="bnpo",  # a mean over the tokens of a micro-batch, here on all ranks
    lacks={
        "entropy_coef": "its loss has no entropy bonus",
        "temperature": f"{_SAMPLED_ELSEWHERE}, at the temperature of its start",
        "reward": "TRL logs it on the main process alone",
        "ref_logps": "it has no reference policy",
        "old_entropies": "vLLM gives log-probs, and no entropies",
        "group_rewards": "completions arrive one by one, without those of their group",
        "group_logps": "completions arrive one by one, without those of their group",
        "offline": "no stored solutions are put into its batch",
        "prompt_entropies": "completions share the tokens of a prompt",
        **{f"acts.{what}": _SAMPLED_ELSEWHERE for what in ("problems", "temperatures", "completions", "groups")},
    },
    idle={
        "off_policy_updates": "it trains once on each completion, and max_staleness bounds how old one may be",
        **dict.fromkeys(("trim_padding", "sort_by_length", "skip_zero_advantage", "fast_step"), _PACKED),
    },
)
FAMILIES = (
    GRPO,
    Family(
        "RLOOTrainer",
        "RLOOConfig",
        per_token=False,
        scales_loss=False,
        keeps_old_logps=False,
        loss_type="luspo",  # a sum over the tokens of a completion, then a mean over completions
        lacks={
            "entropy_coef": "it has no entropy bonus",
            "ref_logps": "it takes the KL penalty into the reward and keeps no log-probs of the reference policy",
            "clipped": "it clips the ratios of completions, not those of tokens",
            "acts.completions": "it has no place where they could be replaced",
        },
        idle=dict.fromkeys(_BONUS, "it has no entropy bonus"),
    ),
    Family(
        "GMPOTrainer",
        "GMPOConfig",
        homes=("trl.experimental.gmpo",),
        per_token=False,
        clips_logs=True,
        loss_type="grpo",  # a mean over the tokens of a completion, then one over completions
        lacks={"entropy_coef": "its loss has no entropy bonus"},
        idle=dict.fromkeys(_BONUS, "its loss has no entropy bonus"),
    ),
    ASYNC_GRPO,
)
NAMES = ", ".join(family.name for family in FAMILIES[:-1]) + f" and {FAMILIES[-1].name}"


def base_in_trl(cls: type) -> type | None:
    """The first class of TRL that a class is or inherits from."""
    return next((base for base in cls.__mro__ if base.__module__.partition(".")[0] == "trl"), None)


def by_name(cls: type, ours: type, positional: tuple) -> dict[str, Any]:
    """
    Positional arguments of a trainer by name, as the class behind `ours` takes them; what it hands on as `*args` has
    TRL's names.

    Raises `TypeError` for more than there are.
    """
    behind = cls.__mro__[cls.__mro__.index(ours) + 1]
    names: list[str] = []
    for owner in (behind, base_in_trl(cls)):
        parameters = list(signature(owner).parameters.values())
        names += [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
            break
    if len(positional) > len(names):
        raise TypeError(f"{cls.__name__} takes {len(names)} positional arguments, got {len(positional)}")
    return dict(zip(names, positional, strict=False))


def family_of(cls: type) -> Family:
    """
    The family of a trainer or config class: the one that it names as `own_family`, or that of its base in TRL.

    Raises `TypeError` if the seam does not fit it.
    """
    if hasattr(cls, "own_family"):
        return cls.own_family
    of_trl = base_in_trl(cls)
    behind = cls.__mro__[cls.__mro__.index(of_trl) :] if of_trl else ()
    for late in (base.__name__ for base in behind if base.__module__.partition(".")[0] == "trl_entropy"):
        raise TypeError(
            f"{cls.__name__} would be plain {of_trl.__name__}: name {late} before it among the base classes"
        )
    for family in FAMILIES:
        if of_trl and of_trl.__qualname__ in (family.name, family.config):
            if family.since and Version(installed_trl()) < Version(family.since):
                raise TypeError(
                    f"no entropy control for {cls.__name__} of TRL {installed_trl()}: install trl>={family.since}"
                )
            return family
    replaced = GRPO.trainer_class()
    if replaced in cls.__mro__ and base_in_trl(replaced) is not replaced:
        why = (
            f"{replaced.__module__.partition('.')[0]} has put its own {replaced.__name__} in the place of TRL's "
            "GRPOTrainer, and its loss is not known: train in a process that does not import it"
        )
    elif of_trl is None:
        why = "it is not a trainer or config of TRL"
    elif not issubclass(cls, Trainer):
        why = f"{of_trl.__name__} is the config of another trainer"
    elif not hasattr(of_trl, "_compute_loss"):
        why = f"{of_trl.__name__} has no `_compute_loss` that could read other advantages"
    else:
        why = f"it is not known whether the loss of {of_trl.__name__} reads advantages after the policy's log-probs"
    raise TypeError(f"no entropy control for {cls.__name__}: {why}. It is for {NAMES}, their configs, and subclasses")


def check_trainer(trainer: object) -> None:
    """Raise `TypeError` unless a callback can be attached to this."""
    if not isinstance(trainer, Trainer):
        raise TypeError(f"attach takes a {NAMES.replace(' and ', ' or ')}, got {type(trainer).__name__}")
    family_of(type(trainer))


def clip_range_given(args) -> dict[str, bool]:
    """Which clip bounds the user set: epsilon_low if `epsilon` is not its default, epsilon_high if it is given."""
    return {"epsilon_low": args.epsilon != type(args).epsilon, "epsilon_high": args.epsilon_high is not None}


def check_clip_acts(what: str, spec: Mapping, args, family: Family) -> None:
    """Raise `ValueError` if a controller's knob or signal, as in its settings, depends on a clip that never acts."""
    why = family.never_clips(args)
    for name in (spec["knob"], spec.get("signal", "")):
        if why is not None and needs_clipping(name):
            raise ValueError(f"{what} would do nothing with {name}: {why}, or drop it")


def check_signal_of(what: str, signal: str, family: Family) -> None:
    """Raise `ValueError` if a controller's signal is none of this trainer."""
    if signal in family.lacks:
        raise ValueError(f"{what} cannot read {signal} in {family.name}: {family.lacks[signal]}. Set another signal")


def installed_trl() -> str:
    """The version of TRL that is imported."""
    return importlib.metadata.version("trl")


def warn_of_cut_sampling(args: object) -> None:
    """Warn, once for each setting, where completions are sampled from a part of the vocabulary alone."""
    cuts = {"top_p": (None, 1.0), "top_k": (None, 0, -1), "min_p": (None, 0.0)}
    asked = {name: getattr(args, name, None) for name in cuts} | (getattr(args, "generation_kwargs", None) or {})
    cut = ", ".join(f"{name}={asked[name]}" for name, off in cuts.items() if asked[name] not in off)
    _warn_of_cuts(cut, getattr(args, "use_vllm", False))


@cache
def _warn_of_cuts(cuts: str, use_vllm: bool) -> None:
    if cuts:
        of_sampler = (
            ". Those of vLLM, which TRL corrects by, are of the part alone, and mismatch/* has the difference in it"
        )
        logger.warning(
            "%s: completions are sampled from a part of the vocabulary, but log-probs and entropies are of the whole "
            "of it, and so are targets in nats%s",
            *(cuts, of_sampler if use_vllm else ""),
        )


def is_tested(version: str) -> bool:
    """Whether a version of TRL is in the range of those that are tested."""
    return Version(TRL_VERSIONS[0]) <= Version(version) <= Version(TRL_VERSIONS[-1])


@cache
def warn_if_untested(version: str) -> None:
    """Warn, once, about a version of TRL outside of the range of those that are tested."""
    oldest, newest = TRL_VERSIONS[0], TRL_VERSIONS[-1]
    if not is_tested(version):
        warnings.warn(
            f"TRL {version} is outside of the tested range {oldest} to {newest}: if TRL has changed what entropy "
            f"control relies on, the first step ends in a SeamError. Install trl>={oldest},<={newest} to be sure",
            stacklevel=2,
        )
