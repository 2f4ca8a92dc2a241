"""Measure how many samples share a context in a rollout batch."""

import torch
from torch import Tensor

from ..rules.tokens import mixed, token_hashes


def contexts(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """
    `(B, T)` int64: for every place in a completion, a hash of the prompt and the tokens before it.

    Args:
        prompt_ids, prompt_mask (`torch.Tensor`):
            `(B, P)`, padded on the left; the mask is 0 at padding.
        completion_ids, completion_mask (`torch.Tensor`):
            `(B, T)`, padded on the right.
    """
    prompts = token_hashes(prompt_ids, prompt_mask, -prompt_ids.shape[1]).sum(-1, keepdim=True)
    own = token_hashes(completion_ids, completion_mask, 1)  # counted from 0, a first token 0 would look like none
    return mixed(prompts + own.cumsum(-1) - own)


def samples_per_context(contexts: Tensor) -> dict[str, float]:
    r"""
    \\( \sum_c n_c^2 / \sum_c n_c \\): the mean, over tokens, of the number of rows with the same context.

    \\( n_c \\) is how often context \\( c \\) occurs in the batch. The value is 1 if each context occurs once.

    Args:
        contexts (`torch.Tensor`):
            From [`contexts`], only those of trained tokens; 0 means none.
    """
    numbers = torch.unique(contexts[contexts != 0], return_counts=True)[1].double()
    if not len(numbers):
        return {}
    return {"authority/samples_per_context": (numbers.square().sum() / numbers.sum()).item()}
