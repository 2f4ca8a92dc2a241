"""Speed up TRL's LM head: smaller tiles on a CPU, and a backward pass only over tokens with a gradient."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer import utils

from .error import SeamError


TILES = "trl.kernels.chunked_logprob"
# The share of tokens with a gradient above which copying them costs more than it saves
MOSTLY_LIVE = 0.7
SMALL = 1024  # number of tokens and of vocabulary entries in a small tile
TOLERANCE = 1e-4  # for the gradient in float32, whose sums have another order


def has_tiles() -> bool:
    """Whether this TRL's LM head works on tiles; before TRL 1.15 it does not."""
    return TILES in sys.modules


@contextmanager
def patched_head(device: torch.device, small_tiles: bool = False, skip_tokens: bool = False) -> Iterator[None]:
    """
    Make TRL's LM head faster within a context, with the same outputs and gradients up to rounding.

    Args:
        device (`torch.device`):
            The policy's device, on which the patches are checked before use.
        small_tiles (`bool`, *optional*, defaults to `False`):
            Whether to use tiles of 1024 tokens x 1024 vocabulary entries, if it [`has_tiles`]. On a CPU, TRL's own
            tiles, 4096 x 32768, spend most of their time on allocating memory.
        skip_tokens (`bool`, *optional*, defaults to `False`):
            Whether the backward pass leaves out tokens without a gradient. It reads their number from the device, once
            per micro-batch.

    Raises `ValueError` if TRL's LM head has no backward pass of its own, and [`SeamError`] if the gradient of random
    tokens differs from TRL's.
    """
    if not (small_tiles or skip_tokens):
        yield
        return
    if not has_tiles():
        raise ValueError("skip_lm_head_tokens needs TRL >= 1.15, whose LM head has its own backward pass: drop it")
    kernel, head = sys.modules[TILES], utils._ChunkedLogProbFunction
    sizes = utils._CHUNKED_LOGPROB_CHUNK_SIZE, kernel.TOKEN_CHUNK_SIZE
    of_trl = _gradient(device)
    try:
        if small_tiles:
            utils._CHUNKED_LOGPROB_CHUNK_SIZE = kernel.TOKEN_CHUNK_SIZE = SMALL
        if skip_tokens:
            utils._ChunkedLogProbFunction = _of_live_tokens(head)
        difference = (_gradient(device) - of_trl).norm() / of_trl.norm()
        if not difference < TOLERANCE:
            raise SeamError(
                "with small_lm_head_tiles or skip_lm_head_tokens, the gradient of this TRL's LM head changes by "
                f"{difference:.1g}: drop them; this TRL version is not supported"
            )
        yield
    finally:
        utils._CHUNKED_LOGPROB_CHUNK_SIZE, kernel.TOKEN_CHUNK_SIZE = sizes
        utils._ChunkedLogProbFunction = head


def _gradient(device: torch.device) -> Tensor:
    """The gradient of a small model through TRL's LM head, from a tenth of some random tokens."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=SMALL + 99, **shape, **heads)).to(device)
        ids = torch.randint(SMALL + 99, (2, SMALL // 2 + 99), device=device)
        weights = torch.randn(2, SMALL // 2 + 98, device=device)
        weights *= torch.rand_like(weights) < 0.1
    utils.add_fused_lm_head(model, 0.7, False, outputs=("log_probs", "entropy"))
    outputs = model(input_ids=ids, labels=ids, fused_lm_head=True)
    ((outputs.log_probs + 2 * outputs.entropy) * weights).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def _of_live_tokens(head: type) -> type:
    class OfLiveTokens(head):
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
