"""The LM head of TRL: smaller tiles on a CPU, and a backward pass of the tokens that get a gradient."""

import sys
from types import SimpleNamespace

import torch
from trl.trainer import utils


TILES = "trl.kernels.chunked_logprob"
# The share of live tokens above which copying them costs more than it spares
MOSTLY_LIVE = 0.7


def has_tiles() -> bool:
    """Whether the LM head of this TRL works on tiles; before TRL 1.15 it does not."""
    return TILES in sys.modules


def use_small_tiles() -> None:
    """
    Let TRL's LM head work on tiles of 1024 tokens x 1024 entries of the vocabulary, if it [`has_tiles`].

    On a CPU its own, 4096 x 32768, spend most of their time on getting memory: twice as slow or worse, with outputs
    equal to rounding. It holds for the whole process.
    """
    utils._CHUNKED_LOGPROB_CHUNK_SIZE = sys.modules[TILES].TOKEN_CHUNK_SIZE = 1024


def skip_lm_head_tokens() -> None:
    """
    Let the backward pass of TRL's LM head leave out the tokens that get no gradient, for the whole process.

    It asks the device how many there are, once for each micro-batch. Raises `ValueError` for a TRL without such a
    head.
    """
    head = getattr(utils, "_ChunkedLogProbFunction", None)
    if head is None:
        raise ValueError(
            "skip_lm_head_tokens needs TRL >= 1.15, whose LM head has a backward pass of its own: drop it"
        )
    if not hasattr(head, "of_all_tokens"):
        utils._ChunkedLogProbFunction = _of_live_tokens(head)


def _of_live_tokens(head: type) -> type:
    class OfLiveTokens(head):
        of_all_tokens = head

        @staticmethod
        def backward(ctx, *gradients):
            given = [gradient for gradient in gradients[:2] if gradient is not None]
            live = torch.stack([gradient != 0 for gradient in given]).any(0).nonzero().flatten()
            hidden, weight, bias, *of_tokens = ctx.saved_tensors
            if len(live) > MOSTLY_LIVE * len(hidden):
                return head.backward(ctx, *gradients)
            part = SimpleNamespace(
                saved_tensors=(hidden[live], weight, bias, *(values[live] for values in of_tokens)),
                compute_dtype=ctx.compute_dtype,
                chunk_size=ctx.chunk_size,
                kernel_args=ctx.kernel_args,
                needs_input_grad=ctx.needs_input_grad,
            )
            of_live = (None if gradient is None else gradient[live] for gradient in gradients[:2])
            of_hidden, *others = head.backward(part, *of_live, *gradients[2:])
            if of_hidden is not None:
                of_hidden = torch.zeros_like(hidden).index_copy(0, live, of_hidden)
            return of_hidden, *others

    return OfLiveTokens
