"""Average loss terms that follow `loss_type` as TRL averages the losses of tokens."""

from torch import Tensor

from .error import UNSUPPORTED, SeamError


# Losses that are a sum over the tokens of an optimizer step, divided by their number on all ranks
OVER_TOKENS = ("cispo", "dapo", "vespo")
# Losses that are a mean over the rows of a micro-batch
OVER_ROWS = ("dr_grpo", "grpo", "luspo", "sapo")
LOSS_TYPES = (*OVER_TOKENS, *OVER_ROWS, "bnpo")  # in the tested versions of TRL


def micro_batch_mean(loss_type: str, values: Tensor, mask: Tensor, longest: int | None) -> Tensor:
    """
    The mean over a micro-batch, as `loss_type` averages.

    Args:
        loss_type (`str`):
            TRL's flag; not one of `OVER_TOKENS`.
        values (`torch.Tensor`):
            `(B, T)`, 0 outside the mask.
        mask (`torch.Tensor`):
            Bool `(B, T)`: the trained tokens.
        longest (`int`, *optional*):
            TRL's `max_completion_length`.

    Raises [`SeamError`] for an unknown loss type.
    """
    if loss_type == "bnpo":
        return values.sum() / mask.sum().clamp(min=1)
    if loss_type not in OVER_ROWS:
        raise SeamError(f"we do not know how loss_type={loss_type!r} averages over tokens. {UNSUPPORTED}")
    of_rows = values.sum(-1)
    if loss_type == "dr_grpo":
        of_rows = of_rows / longest
    elif loss_type != "luspo":
        of_rows = of_rows / mask.sum(-1).clamp(min=1)
    return of_rows.mean()
