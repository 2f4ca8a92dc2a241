"""A callback that needs its trainer."""

from typing import ClassVar, Self

from transformers import Trainer, TrainerCallback

from .._seam import Hooks
from ..families import check_trainer


def has_control(trainer: Trainer) -> bool:
    """Whether a trainer has entropy control."""
    return isinstance(trainer, Hooks)


class Attached(TrainerCallback):
    """
    A callback that needs its trainer, which transformers does not pass to callbacks.

    A trainer with entropy control attaches its callbacks automatically. For a plain trainer, call `attach(trainer)`
    before it trains.

    Attributes:
        trainer ([`~transformers.Trainer`], *optional*): the trainer that it is attached to.
    """

    # Whether it is called before the trainer's other callbacks
    first: ClassVar[bool] = False
    trainer: Trainer | None = None

    def __str__(self) -> str:
        return f"the {type(self).__name__}"

    def attach(self, trainer: Trainer) -> Self:
        """
        Attach the callback to a trainer. A second call for the same trainer changes nothing.

        Raises `TypeError` if the trainer is not one of [`~families.FAMILIES`], and `ValueError` if the callback is
        attached to another trainer or does not fit this one.
        """
        check_trainer(trainer)
        callbacks, new = trainer.callback_handler.callbacks, self.trainer is not trainer
        if new:
            if self.trainer is not None:
                raise ValueError(f"{self} is already attached: make one per trainer")
            self.take(trainer)
            self.trainer = trainer
        if self not in callbacks:
            callbacks.append(self)  # add_callback warns about a second callback of the same class
        if new and self.first:
            callbacks.insert(0, callbacks.pop(callbacks.index(self)))
        return self

    def take(self, trainer: Trainer) -> None:
        """Take the needed objects from a trainer, once. Raises `ValueError` if the callback does not fit it."""

    def attached(self) -> Trainer:
        """The trainer. Raises `ValueError` if it is not attached."""
        if self.trainer is None:
            raise ValueError(f"{self} is not attached to a trainer: call attach(trainer) before trainer.train()")
        return self.trainer

    def stop(self) -> None:
        """Release resources; called however the run ended."""
