"""TRL's trainers and their configs with entropy control."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from .config import EntropyGRPOConfig, with_flags
from .families import GRPO, family_of
from .trainer import EntropyControl


P = ParamSpec("P")
T = TypeVar("T")


def _takes_what(method: Callable[P, None]) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Show another method's arguments to people and type checkers."""
    return cast(Any, wraps(method, assigned=(), updated=()))


class EntropyGRPOTrainer(EntropyControl, GRPOTrainer, family=GRPO):
    """TRL's [`~trl.GRPOTrainer`] with [`EntropyControl`]; the arguments are TRL's, `args` an [`EntropyGRPOConfig`]."""

    @_takes_what(GRPOTrainer.__init__)
    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)


@overload
def with_entropy_control(cls: type[GRPOTrainer]) -> type[EntropyGRPOTrainer]: ...
@overload
def with_entropy_control(cls: type[GRPOConfig]) -> type[EntropyGRPOConfig]: ...
@overload
def with_entropy_control(cls: type[T]) -> type[T]: ...
def with_entropy_control(cls: type) -> type:
    """
    A TRL trainer class with [`EntropyControl`], or its config class with [`EntropyFlags`].

    Returns the same class at every call. docs/trainers.md says what works with which trainer.

    Args:
        cls (`type`):
            `GRPOTrainer`, `RLOOTrainer`, `GMPOTrainer`, `AsyncGRPOTrainer`, the config of one of them, or a subclass
            of your own.

    Raises `TypeError` for any other class.
    """
    if not isinstance(cls, type):
        raise TypeError(f"with_entropy_control takes a class, got {cls!r}")
    family_of(cls)
    if not issubclass(cls, Trainer):
        return with_flags(cls)
    if issubclass(cls, EntropyControl):
        return cls
    return EntropyGRPOTrainer if cls is GRPOTrainer else _with_control(cls)  # type: ignore[arg-type]


@cache
def _with_control(cls: type) -> type:
    names = {"__doc__": f"[`{cls.__name__}`] with [`EntropyControl`]."}
    return type(f"Entropy{cls.__name__}", (EntropyControl, cls), names)
