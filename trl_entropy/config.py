"""The flags."""

import inspect
import logging
import re
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from .build import Control, build_control
from .checks import check_whole_number, lab
from .control.presets import OFF, lay_under
from .families import GRPO, Family, base_in_trl, family_of
from .refusals import check_numbers


logger = logging.getLogger(__name__)

# For a type checker the flags are a subclass of GRPOConfig
if TYPE_CHECKING:
    OfTRL = GRPOConfig
else:
    OfTRL = object

# Flags that act in a trainer of TRL too
READ_BY_TRL = ("entropy_target", "off_policy_updates")
LAID = ("entropy_control", "off_policy_updates")  # flags that set others
T = TypeVar("T", bound=type)


def with_help(cls: T) -> T:
    """The same dataclass, with each new flag's text in the docstring as the flag's help, in one line."""
    entries = re.split(r"^    (\w+) \(.*\):\n", inspect.cleandoc(cls.__doc__ or ""), flags=re.MULTILINE)[1:]
    texts = {name: " ".join(text.split("\n\n")[0].split()) for name, text in zip(*[iter(entries)] * 2, strict=True)}
    own = inspect.get_annotations(cls)
    for flag in (flag for flag in fields(cls) if flag.name in own):
        flag.metadata = MappingProxyType({"help": texts[flag.name]})
    return cls


@with_help
@dataclass
class EntropyFlags(OfTRL):
    r"""
    A TRL config with entropy control. With the defaults it trains exactly as TRL does.

    The asymmetric clip bounds (`epsilon`, `epsilon_high`), `num_iterations`, `entropy_coef` and
    `top_entropy_quantile` are TRL's own.

    Parameters:
        positive_advantage_coef (`float`, *optional*, defaults to `1.0`):
            Loss weight λ+ >= 0 of tokens with positive advantage. Below 1.0 it raises entropy.
        negative_advantage_coef (`float`, *optional*, defaults to `1.0`):
            Loss weight λ- >= 0 of tokens with negative advantage. Below 1.0 it lowers entropy.
        off_policy_updates (`int`, *optional*):
            Number N >= 1 of optimizer updates per rollout batch, num_iterations included. Sets steps_per_generation =
            N * gradient_accumulation_steps / num_iterations.
        entropy_control (`str`, *optional*):
            Bundled method: hold (ours: a PI law on TRL's entropy bonus), entropy_guided, stage or epoch
            (Positive-Advantage Reweighting), entropic (EntroPIC), confident_sign (its law on our own weight),
            neg_to_pos (Dissecting Long-CoT), skywork (Skywork-OR1), mai_clip (MAI-Thinking-1), repo_r (REPO-R), siren
            (SIREN), aer (in the style of AER), paec (in the style of PAEC), balance (ours, after BAPO), prepo (PREPO),
            erpo (in the style of ERPO), offline_injection (Dissecting Long-CoT), the path of your own .yaml file, or
            none. skywork, mai_clip, repo_r and aer have their own target, used if none is set.
        entropy_target (`float`, *optional*):
            Target > 0 of the controllers, and of TRL's use_adaptive_entropy, in nats per token. If neither target flag
            is set, it is the bundled method's target, else TRL's 0.2.
        entropy_target_ratio (`float`, *optional*):
            Target of the controllers as a share > 0 of the entropy in the first optimizer steps.
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
            Rules on what is sampled for training: a mapping of names (or dotted paths of your own) to parameters, as
            JSON on the command line.
        controllers (`dict` or `str`, *optional*):
            Controllers: a mapping of names you choose to law, knob and settings, as JSON on the command line.
        pooling (`str`, *optional*, defaults to `"exact"`):
            Where rules take statistics over tokens (means, quantiles, largest values) from. exact: the whole optimizer
            step, on all ranks, at the cost of one more forward pass per micro-batch if there are several. lagged: the
            step before, at no cost.
        entropy_measures (`str`, *optional*, defaults to `"basic"`):
            What is measured in every optimizer step. none: nothing. basic: everything that costs next to nothing; logs
            show the entropy by sign, the groups that are all correct or all wrong, the controllers and their knobs,
            and metrics.jsonl has the rest. full: all of it is logged, and also the entropy of the prompts and at
            temperature 1, the exact prediction of the change of entropy, and how much the answers of a group differ.
        trim_padding (`bool`, *optional*, defaults to `False`):
            Whether to cut off the padding that all rows of a micro-batch share. The gradient stays the same, up to
            rounding.
        sort_by_length (`bool`, *optional*, defaults to `False`):
            Whether to put completions of similar length into the same micro-batch of an optimizer step. The gradient
            stays the same, up to rounding.
        skip_zero_advantage (`bool`, *optional*, defaults to `False`):
            Whether to leave completions with advantage 0 out of the backward pass. The gradient stays the same, up to
            rounding. Their entropy is still measured.
        fast_step (`bool`, *optional*, defaults to `False`):
            Whether to turn on trim_padding, sort_by_length and skip_zero_advantage.
        skip_lm_head_tokens (`bool`, *optional*, defaults to `False`):
            Whether to leave tokens without a gradient, such as those of weight 0, out of the LM head's backward pass.
            The gradient stays the same, up to rounding.
        small_lm_head_tiles (`bool`, *optional*, defaults to `False`):
            Whether TRL's LM head works on tiles of 1024 x 1024, on a CPU and with a vocabulary above 1024. It is two
            to three times as fast, and equal up to rounding.
        live_view (`bool`, *optional*, defaults to `False`):
            Whether to show the run in a panel in the terminal instead of the progress bar.

    Raises `ValueError` for an unknown name, a value out of range, or settings that exclude each other.
    """

    family: ClassVar[Family] = GRPO

    positive_advantage_coef: float = 1.0
    negative_advantage_coef: float = 1.0
    off_policy_updates: int | None = None
    entropy_control: str | None = None
    entropy_target: float | None = None  # type: ignore[assignment]
    entropy_target_ratio: float | None = None
    token_weights: dict | str | None = None
    advantage_bonuses: dict | str | None = None
    loss_terms: dict | str | None = None
    rollout_rules: dict | str | None = None
    controllers: dict | str | None = None
    pooling: str = "exact"
    entropy_measures: str = "basic"
    trim_padding: bool = False
    sort_by_length: bool = False
    skip_zero_advantage: bool = False
    fast_step: bool = False
    skip_lm_head_tokens: bool = False
    small_lm_head_tiles: bool = False
    live_view: bool = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.family = family_of(cls)

    def __post_init__(self):
        check_numbers(self)
        lay_under(self, getattr(super(), "entropy_target", None))  # RLOOConfig has no such flag
        self._set_off_policy_updates()
        super().__post_init__()
        self._laid = {name: getattr(self, name) for name in LAID}
        if self.live_view:
            lab("live", "live_view")  # a missing package ends the run before a model loads
        self.control  # noqa: B018 (a wrong value ends the run before a model loads)

    @property
    def control(self) -> Control:
        """The rules, controllers and so on that the flags ask for; built once, and again if a flag changes."""
        for late in (name for name, value in self._laid.items() if getattr(self, name) != value):
            raise ValueError(
                f"{late} sets other flags when the config is made: pass it to the config, do not set it later"
            )
        flags = repr([getattr(self, flag.name) for flag in fields(self)])
        if self.__dict__.get("_control", ("",))[0] != flags:
            self.__dict__["_control"] = flags, build_control(self)
        return self.__dict__["_control"][1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_control"}  # built again from the flags

    def get_process_log_level(self) -> int:
        """
        As in transformers. A trainer calls this on its config while it is made.

        Raises `TypeError` if that is TRL's own trainer, in which the flags that are set would do nothing.
        """
        frame = inspect.currentframe()
        frame = frame and frame.f_back
        while frame is not None and frame.f_locals.get("self") is self:
            frame = frame.f_back  # a subclass of the config calls first
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

    def _set_off_policy_updates(self) -> None:
        updates = self.off_policy_updates
        if updates is None or "off_policy_updates" in self.family.idle:  # refused with the others
            return
        check_whole_number("off_policy_updates", updates)
        if updates % self.num_iterations:
            raise ValueError(
                f"off_policy_updates={updates} does not fit num_iterations={self.num_iterations}: it counts all "
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


@dataclass
class EntropyGRPOConfig(EntropyFlags, GRPOConfig):
    """TRL's [`~trl.GRPOConfig`] with [`EntropyFlags`]."""


def with_flags(cls: type) -> type:
    """A TRL config class, or a subclass of one, with [`EntropyFlags`]; the same class at every call."""
    if issubclass(cls, EntropyFlags):
        return cls
    return EntropyGRPOConfig if cls is GRPOConfig else _with_flags(cls)  # type: ignore[arg-type]


@cache
def _with_flags(cls: type) -> type:
    def reduce(args, protocol):
        if type(args) is made:  # the class cannot be imported by name, and a checkpoint holds its args
            return _restored, (cls, args.__getstate__())
        return super(made, args).__reduce_ex__(protocol)

    names = {"__doc__": f"[`{cls.__name__}`] with [`EntropyFlags`].", "__reduce_ex__": reduce}
    made: type = dataclass(type(f"Entropy{cls.__name__}", (EntropyFlags, cls), names))
    return made


def _restored(cls: type, state: dict) -> EntropyFlags:
    args: EntropyFlags = object.__new__(with_flags(cls))
    args.__dict__.update(state)
    return args
