"""A callback that needs its trainer."""

from typing import ClassVar, Self

from transformers import Trainer, TrainerCallback

from ..families import check_trainer


class Attached(TrainerCallback):
    """
    A callback that needs its trainer, which transformers does not pass to it.

    A trainer with entropy control attaches its callbacks itself. For a plain one call `attach(trainer)` before it
    trains.

    Attributes:
        trainer ([`~transformers.Trainer`], *optional*): the trainer that it is attached to.
    """

    # Whether it is called before the other callbacks of the trainer
    first: ClassVar[bool] = False
    trainer: Trainer | None = None

    def __str__(self) -> str:
        return f"the {type(self).__name__}"

    def attach(self, trainer: Trainer) -> Self:
        """
        Take what is needed from a trainer, and be called by it. A second time for the same one changes nothing.

        Raises `TypeError` if it is none of [`~families.FAMILIES`], and `ValueError` if the callback is attached to
        another one or does not fit it.
        """
        check_trainer(trainer)
        callbacks, new = trainer.callback_handler.callbacks, self.trainer is not trainer
        if new:
            if self.trainer is not None:
                raise ValueError(f"{self} is attached already: make one for each trainer")
            self.take(trainer)
            self.trainer = trainer
        if self not in callbacks:
            callbacks.append(self)  # add_callback warns of a second one of a class
        if new and self.first:
            callbacks.insert(0, callbacks.pop(callbacks.index(self)))
        return self

    def take(self, trainer: Trainer) -> None:
        """Take what is needed from a trainer, once. Raises `ValueError` if the callback does not fit it."""

    def attached(self) -> Trainer:
        """The trainer. Raises `ValueError` if there is none."""
        if self.trainer is None:
            raise ValueError(f"{self} is attached to no trainer: call attach(trainer) before trainer.train()")
        return self.trainer

    def stop(self) -> None:
        """Give back what is held, whatever has ended the run."""
