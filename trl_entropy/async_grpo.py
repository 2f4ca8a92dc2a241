"""TRL's asynchronous trainer with entropy control, imported from wherever the installed TRL keeps it."""

from typing import TYPE_CHECKING

from .families import ASYNC_GRPO
from .wrap import with_entropy_control


if TYPE_CHECKING:
    EntropyAsyncGRPOConfig: type
    """The config of TRL's asynchronous trainer with [`EntropyFlags`]."""
    EntropyAsyncGRPOTrainer: type
    """TRL's asynchronous trainer with [`EntropyControl`], from TRL 1.16."""


def __getattr__(name: str) -> type:
    """Make the classes on first use: an older TRL has none, and raises an error then."""
    of_trl = {"EntropyAsyncGRPOConfig": ASYNC_GRPO.config_class, "EntropyAsyncGRPOTrainer": ASYNC_GRPO.trainer_class}
    if name not in of_trl:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return with_entropy_control(of_trl[name]())
