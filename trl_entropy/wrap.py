"""Entropy control for further trainers of TRL."""

from functools import cache

from transformers import Trainer
from trl import GRPOTrainer

from .config import with_flags
from .trainer import EntropyControl, EntropyGRPOTrainer
from .trainers import family_of


def with_entropy_control(cls: type) -> type:
    """
    The class of a trainer of TRL with [`EntropyControl`], or that of its config with [`EntropyFlags`].

    The same class at every call. docs/trainers.md says what works with which trainer.

    Args:
        cls (`type`):
            `GRPOTrainer`, `RLOOTrainer`, `GMPOTrainer`, the config of one of them, or a subclass of your own.

    Raises `TypeError` for any other class.
    """
    if not isinstance(cls, type):
        raise TypeError(f"with_entropy_control takes a class, got {cls!r}")
    family_of(cls)
    if not issubclass(cls, Trainer):
        return with_flags(cls)
    if issubclass(cls, EntropyControl):
        return cls
    return EntropyGRPOTrainer if cls is GRPOTrainer else _with_control(cls)


@cache
def _with_control(cls: type) -> type:
    names = {"__doc__": f"[`{cls.__name__}`] with [`EntropyControl`]."}
    return type(f"Entropy{cls.__name__}", (EntropyControl, cls), names)
