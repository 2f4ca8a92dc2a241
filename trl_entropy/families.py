"""The TRL trainers and TRL versions that entropy control supports."""

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


logger = logging.getLogger(__name__)

# The versions that the tests run on, from the oldest to the newest
TRL_VERSIONS = ("1.10.0", "1.13.0", "1.14.2", "1.16.0")

# What these values of TRL's `loss_type` do where the others clip ratios to [1 - epsilon_low, 1 + epsilon_high]
UNCLIPPED = {
    "cispo": "caps ratios at epsilon_high itself, keeps their gradient, and does not read epsilon_low",
    "sapo": "reads neither bound",
    "vespo": "reads neither bound",
}


@dataclass(frozen=True)
class Family:
    r"""
    How a TRL trainer and its subclasses read a batch and scale the loss.

    Args:
        name, config (`str`):
            The names of the two classes.
        homes (`tuple[str, ...]`, *optional*, defaults to `("trl",)`):
            The modules that may have them; the first one that does is used.
        since (`str`, *optional*):
            The oldest TRL version whose trainer of this name is supported.
        per_token (`bool`, *optional*, defaults to `True`):
            Whether it accepts advantages `(B, T)`. Otherwise it gets `(B,)`: the mean over a completion's trained
            tokens.
        packed (`bool`, *optional*, defaults to `False`):
            Whether its batch is one row of packed tokens that other processes sampled while it trained.
        scales_loss (`bool`, *optional*, defaults to `True`):
            Whether it divides its loss by `gradient_accumulation_steps` itself. Otherwise transformers does it
            afterwards.
        keeps_old_logps (`bool`, *optional*, defaults to `True`):
            Whether its batch has the old policy's log-probs per token once the policy has moved. Otherwise the batch
            only has their sums, and the seam adds the log-probs per token.
        clips_logs (`bool`, *optional*, defaults to `False`):
            Whether `epsilon` bounds the logarithm of the ratio.
        loss_type (`str`, *optional*):
            The `loss_type` of `GRPOTrainer` that averages over tokens as this trainer does, if this trainer has no
            such flag.
        lacks (`Mapping[str, str]`, *optional*):
            What it cannot give to rules or controllers, and why: a knob, a signal, an entry of `Rule.needs`, or
            `acts.` and one of `RolloutRule.acts`.
        idle (`Mapping[str, str]`, *optional*):
            The flags that would do nothing, and why.
        knobs (`tuple[Knob, ...]`, *optional*):
            Additional knobs; each has the name of a flag.
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
        """Whether `loss_type` chooses its loss."""
        return self.loss_type is None

    @property
    def lacks_in_words(self) -> dict[str, str]:
        """`lacks`, each reason with the trainer's name before it, for an error message."""
        return {name: f"in {self.name}: {why}" for name, why in self.lacks.items()}

    def trainer_class(self) -> type:
        """The trainer class. Raises `ImportError` if the installed TRL does not have it."""
        return self._class(self.name)

    def config_class(self) -> type:
        """The config class of the trainer. Raises `ImportError` if the installed TRL does not have it."""
        return self._class(self.config)

    def _class(self, name: str) -> type:
        for home in self.homes:
            try:
                module = importlib.import_module(home)
            except ModuleNotFoundError as error:
                if error.name is None or not home.startswith(error.name):
                    raise  # a package that TRL's file imports is missing
                continue
            if hasattr(module, name):
                return getattr(module, name)
        raise ImportError(f"TRL {installed_trl()} has no {name}: install trl>={self.since or TRL_VERSIONS[0]}")

    def clip_range(self, low: float, high: float, loss_type: str | None) -> tuple[float, float]:
        r"""Its \\( \epsilon \\) converted to \\( [1 - \epsilon_{\text{low}}, 1 + \epsilon_{\text{high}}] \\)."""
        if self.has_loss_types and loss_type in UNCLIPPED:
            return 1.0, inf  # no gradient is stopped
        return (1 - exp(-low), exp(high) - 1) if self.clips_logs else (low, high)

    def never_clips(self, args) -> str | None:
        """Why TRL never clips a ratio in a run of this config, and what to do about it; `None` if it does clip."""
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
_SAMPLED_ELSEWHERE = "a separate process samples during training"
_PACKED = "TRL packs its batch without padding"
ASYNC_GRPO = Family(
    "AsyncGRPOTrainer",
    "AsyncGRPOConfig",
    homes=("trl", "trl.experimental.async_grpo"),
    since="1.16.0",  # before, the batch does not say which completion a token belongs to
    packed=True,
    loss_type="bnpo",  # a mean over the tokens of a micro-batch, here over all ranks
    lacks={
        "entropy_coef": "its loss has no entropy bonus",
        "temperature": f"{_SAMPLED_ELSEWHERE}, at the temperature it started with",
        "reward": "TRL logs it on the main process only",
        "ref_logps": "it has no reference policy",
        "old_entropies": "vLLM gives log-probs, but no entropies",
        "group_rewards": "completions arrive one by one, without the others of their group",
        "group_logps": "completions arrive one by one, without the others of their group",
        "offline": "stored solutions cannot be put into its batch",
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
            "ref_logps": "it subtracts the KL penalty from the reward and keeps no log-probs of the reference policy",
            "clipped": "it clips the ratios of completions, not of tokens",
            "acts.completions": "it has no place where completions could be replaced",
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
    """The first TRL class that a class is or inherits from."""
    return next((base for base in cls.__mro__ if base.__module__.partition(".")[0] == "trl"), None)


def by_name(cls: type, ours: type, positional: tuple) -> dict[str, Any]:
    """
    Positional arguments of a trainer by name, as the next class after `ours` with an `__init__` takes them; those it
    passes on as `*args` get the names of the next such class, without those that already have a place.

    Raises `TypeError` for too many arguments.
    """
    names: list[str] = []
    for owner in (each for each in cls.__mro__[cls.__mro__.index(ours) + 1 :] if "__init__" in vars(each)):
        parameters = list(signature(owner).parameters.values())
        places = (each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
        names += [name for name in places if name not in names]
        if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
            break
    if len(positional) > len(names):
        raise TypeError(f"{cls.__name__} takes {len(names)} positional arguments, got {len(positional)}")
    return dict(zip(names, positional, strict=False))


def family_of(cls: type) -> Family:
    """
    The family of a trainer or config class: its `own_family`, or the family of its TRL base class.

    Raises `TypeError` if entropy control does not support the class.
    """
    if hasattr(cls, "own_family"):
        return cls.own_family
    of_trl = base_in_trl(cls)
    behind = cls.__mro__[cls.__mro__.index(of_trl) :] if of_trl else ()
    for late in (base.__name__ for base in behind if base.__module__.partition(".")[0] == "trl_entropy"):
        raise TypeError(
            f"{cls.__name__} would act as plain {of_trl.__name__}: put {late} before it in the list of base classes"
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
            f"{replaced.__module__.partition('.')[0]} has replaced TRL's GRPOTrainer by its own {replaced.__name__}, "
            "whose loss we do not know: train in a process that does not import it"
        )
    elif of_trl is None:
        why = "it is not a trainer or config of TRL"
    elif not issubclass(cls, Trainer):
        why = f"{of_trl.__name__} is the config of another trainer"
    elif not hasattr(of_trl, "_compute_loss"):
        why = f"{of_trl.__name__} has no `_compute_loss`, which entropy control changes the advantages for"
    else:
        why = f"we do not know whether the loss of {of_trl.__name__} reads advantages after the policy's log-probs"
    raise TypeError(f"no entropy control for {cls.__name__}: {why}. It is for {NAMES}, their configs, and subclasses")


def check_trainer(trainer: object) -> None:
    """Raise `TypeError` unless a callback can be attached to this trainer."""
    if not isinstance(trainer, Trainer):
        raise TypeError(f"attach takes a {NAMES.replace(' and ', ' or ')}, got {type(trainer).__name__}")
    family_of(type(trainer))


def clip_range_given(args) -> dict[str, bool]:
    """Which clip bounds the user set: epsilon_low if `epsilon` is not its default, epsilon_high if it is given."""
    return {"epsilon_low": args.epsilon != type(args).epsilon, "epsilon_high": args.epsilon_high is not None}


def installed_trl() -> str:
    """The imported version of TRL."""
    return importlib.metadata.version("trl")


def warn_of_cut_sampling(args: object) -> None:
    """Warn, once per setting, if completions are sampled from only a part of the vocabulary."""
    cuts = {"top_p": (None, 1.0), "top_k": (None, 0, -1), "min_p": (None, 0.0)}
    asked = {name: getattr(args, name, None) for name in cuts} | (getattr(args, "generation_kwargs", None) or {})
    cut = ", ".join(f"{name}={asked[name]}" for name, off in cuts.items() if asked[name] not in off)
    _warn_of_cuts(cut, getattr(args, "use_vllm", False))


@cache
def _warn_of_cuts(cuts: str, use_vllm: bool) -> None:
    if cuts:
        of_sampler = (
            ". vLLM's log-probs, which TRL corrects with, cover only this part, so mismatch/* includes the difference"
        )
        logger.warning(
            "%s: completions are sampled from a part of the vocabulary, but log-probs, entropies and targets in nats "
            "refer to the whole vocabulary%s",
            *(cuts, of_sampler if use_vllm else ""),
        )


def is_tested(version: str) -> bool:
    """Whether a version of TRL is in the tested range."""
    return Version(TRL_VERSIONS[0]) <= Version(version) <= Version(TRL_VERSIONS[-1])


@cache
def warn_if_untested(version: str) -> None:
    """Warn, once, about a version of TRL outside the tested range."""
    oldest, newest = TRL_VERSIONS[0], TRL_VERSIONS[-1]
    if not is_tested(version):
        warnings.warn(
            f"TRL {version} is outside the tested range {oldest} to {newest}: if TRL has changed something that "
            f"entropy control relies on, the first step ends in a SeamError. Install trl>={oldest},<={newest} to be "
            "sure",
            stacklevel=2,
        )
