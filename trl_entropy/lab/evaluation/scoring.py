"""What a model thinks of a response, token by token, at temperature 1."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel


CHUNK = 1024  # tokens whose log-probabilities are held at once
BYTES = 2**31  # of logits in one forward pass, unless a single response has more


class Thought(NamedTuple):
    """
    Means over the tokens of a response, or of its prompt.

    Args:
        logprob (`float`):
            Nats: log-probability of the response's tokens.
        entropy (`float`):
            Nats per token, over the whole vocabulary, where the response's tokens were drawn.
        prompt_entropy (`float`):
            The same where the prompt's tokens stand but for the first; NaN for a prompt of one token.
    """

    logprob: float
    entropy: float
    prompt_entropy: float


@torch.no_grad()
def think(
    model: PreTrainedModel, pad: int, prompts: Sequence[list[int]], responses: Sequence[list[int]]
) -> list[Thought]:
    """
    What the model thinks of each response to its prompt; as many to a forward pass as have [`BYTES`] of logits.

    Args:
        pad (`int`):
            The token for padding, which is masked.
        prompts, responses (`Sequence[list[int]]`):
            Tokens.
    """
    rows = [(prompt, prompt + response) for prompt, response in zip(prompts, responses, strict=True)]
    size = max(len(row) for _, row in rows) * model.config.get_text_config().vocab_size * model.dtype.itemsize
    at_once = max(1, BYTES // size)
    return [
        thought
        for start in range(0, len(rows), at_once)
        for thought in _think(model, pad, rows[start : start + at_once])
    ]


def _think(model: PreTrainedModel, pad: int, rows: list[tuple[list[int], list[int]]]) -> list[Thought]:
    longest = max(len(row) for _, row in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for _, row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for _, row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    thoughts = []
    for place, (prompt, row) in enumerate(rows):
        logprobs, entropies = _of_tokens(logits[place, : len(row) - 1], ids[place, 1 : len(row)])
        before = len(prompt) - 1
        thoughts.append(torch.stack([logprobs[before:].mean(), entropies[before:].mean(), entropies[:before].mean()]))
    return [Thought(*thought) for thought in torch.stack(thoughts).tolist()]


def _of_tokens(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy where it stands, both `(T,)`."""
    logprobs, entropies = [], []
    for some_logits, some_tokens in zip(logits.split(CHUNK), tokens.split(CHUNK), strict=True):
        logps = some_logits.float().log_softmax(-1)
        logprobs.append(logps.gather(-1, some_tokens.unsqueeze(-1)).squeeze(-1))
        # a logit of -inf has no share in the entropy
        entropies.append(-torch.where(logps.isneginf(), 0.0, logps.exp() * logps).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)
