"""Trim the micro-batches of an optimizer step: less padding, and no rows without a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..rollouts.batch import Batch, picked


# The key for the rows that a micro-batch leaves out, beside TRL's columns
LEFT_OUT = "left_out"
# Prefix of columns with a value per completion of a group, which may by chance be as wide as the completions
OF_GROUP = "group_"


class Trimming(NamedTuple):
    """
    How to trim the micro-batches of an optimizer step. Loss and gradient stay the same, up to rounding.

    Args:
        trim (`bool`):
            Cut off the columns that are padding in all rows of a micro-batch.
        sort (`bool`):
            Put rows of similar length into the same micro-batch.
        skip (`bool`):
            Leave out the rows whose advantage is 0 at all trained tokens.
        head (`bool`):
            Leave tokens without a gradient out of the LM head's backward pass.
    """

    trim: bool = False
    sort: bool = False
    skip: bool = False
    head: bool = False


def compacted(batches: list[Batch], how: Trimming, least: int = 0) -> list[tuple[Batch, Batch | None]]:
    """
    The same rows in the same number of micro-batches, each with the rows to train on and the rows to leave out.

    Args:
        batches (`list[dict[str, torch.Tensor]]`):
            The micro-batches of one optimizer step on this rank: `(B, ...)` tensors of the same widths, and single
            numbers.
        how ([`Trimming`]):
            How to trim. Every micro-batch keeps a row to train on, so that all ranks take the same number of steps.
        least (`int`, *optional*, defaults to `0`):
            Least number of rows of the optimizer step to train on: TRL gathers a number per row of a micro-batch, so
            all ranks must have the same number of rows.
    """
    if not (how.sort or how.skip):
        return [(trimmed(batch) if how.trim else batch, None) for batch in batches]
    whole = {
        name: torch.cat([batch[name] for batch in batches]) if first.dim() else first
        for name, first in batches[0].items()
    }
    lengths = whole["completion_mask"].sum(1)
    order = torch.argsort(lengths, stable=True) if how.sort else torch.arange(len(lengths), device=lengths.device)
    left_out = order[:0]
    if how.skip:
        trained = has_advantage(whole)[order]
        order, left_out = order[trained], order[~trained]
        missing = max(max(len(batches), least) - len(order), 0)
        order, left_out = torch.cat([order, left_out[:missing]]), left_out[missing:]
    parts = zip(order.tensor_split(len(batches)), left_out.tensor_split(len(batches)), strict=True)
    cut = trimmed if how.trim else dict
    return [(cut(picked(whole, rows)), cut(picked(whole, left)) if len(left) else None) for rows, left in parts]


def has_advantage(batch: Batch) -> Tensor:
    """Bool `(B,)`: the rows whose advantage is not 0; with `(B, T)`, at one of their trained tokens."""
    advantages = batch["advantages"]
    if advantages.dim() == 1:
        return advantages != 0
    return ((advantages != 0) & trained_mask(batch).bool()).any(1)


def trained_mask(batch: Batch) -> Tensor:
    """`(B, T)` of 0 and 1: the completion tokens that are neither padding nor written by an environment."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def trimmed(batch: Batch) -> Batch:
    """
    The batch without the columns that are padding in all rows, before prompts and after completions.

    A tensor as wide as the completions has a value per token and is cut with them, unless its name begins with
    `group_`.
    """
    prompts, completions = batch["prompt_mask"].bool().any(0), batch["completion_mask"].bool().any(0)
    first, length = torch.stack([prompts.int().argmax(), completions.sum().clamp(min=1)]).tolist()
    width = len(completions)

    def cut(name: str, values: Tensor) -> Tensor:
        if name.startswith("prompt_") and values.shape[1:2] == (len(prompts),):
            return values[:, first:]
        of_tokens = not name.startswith(OF_GROUP) and values.shape[1:2] == (width,)
        return values[:, :length] if of_tokens else values

    return {name: cut(name, values) for name, values in batch.items()}


def check_trimming(trainer, how: Trimming) -> None:
    """Raise `ValueError` for a mixture of experts or images, whose micro-batches cannot be trimmed."""
    if any(how[:3]) and (getattr(trainer, "aux_loss_enabled", False) or getattr(trainer, "_is_vlm", False)):
        raise ValueError(
            "trim_padding, sort_by_length and skip_zero_advantage only work on text, and not with the auxiliary loss "
            "of a mixture of experts, which is computed per micro-batch: drop them"
        )


def prepared(trainer, prepare: Callable[[Any], dict], generation_batch, how: Trimming) -> dict:
    """TRL's next micro-batch; the micro-batches of a new rollout are trimmed first, one optimizer step at a time."""
    if not any(how[:3]):
        return prepare(generation_batch)
    before = trainer._buffered_inputs
    inputs = prepare(generation_batch)
    if not trainer.model.training or trainer._buffered_inputs is before:
        return inputs
    batches, size = trainer._buffered_inputs, trainer.args.gradient_accumulation_steps
    windows = [batches[start : start + size] for start in range(0, len(batches), size)]
    most = _rows_to_train(trainer, windows) if how.skip else [0] * len(windows)
    trainer._buffered_inputs = [
        batch if left_out is None else {**batch, LEFT_OUT: left_out}
        for window, least in zip(windows, most, strict=True)
        for batch, left_out in compacted(window, how, least)
    ]
    return trainer._buffered_inputs[trainer._step % trainer.args.steps_per_generation]


def _rows_to_train(trainer, windows: list[list[dict]]) -> list[int]:
    """The number of rows with an advantage in each optimizer step, on the rank with the most."""
    counts = torch.stack([sum(has_advantage(batch).sum() for batch in window) for window in windows])
    return trainer.accelerator.gather(counts.unsqueeze(0)).amax(0).tolist()
