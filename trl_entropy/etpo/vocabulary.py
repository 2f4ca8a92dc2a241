"""ETPO's losses over a whole vocabulary from hidden states, with logits for only one chunk of tokens at a time."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .targets import policy_loss, soft_state


CHUNK = 256  # number of tokens whose logits are in memory at once


class Head(NamedTuple):
    """
    A linear head over the vocabulary, whose logits are divided by `temperature`.

    Args:
        weight (`torch.Tensor`):
            `(V, D)`.
        bias (`torch.Tensor`, *optional*):
            `(V,)`.
        temperature (`float`, *optional*, defaults to `1.0`):
            The sampling temperature of a policy; 1 for a critic.
    """

    weight: Tensor
    bias: Tensor | None = None
    temperature: float = 1.0

    def logits(self, states: Tensor) -> Tensor:
        """The logits `(N, V)`, float32 (or float64), of states `(N, D)`."""
        logits = nn.functional.linear(states.to(self.weight.dtype), self.weight, self.bias)
        return (logits if logits.dtype == torch.float64 else logits.float()) / self.temperature

    def logps(self, states: Tensor) -> Tensor:
        """The log-probabilities `(N, V)` of states `(N, D)`."""
        return self.logits(states).log_softmax(-1)

    def chosen(self, states: Tensor, ids: Tensor) -> Tensor:
        """`(N,)`: only the logits of the tokens `ids` `(N,)`."""
        weight = self.weight[ids]
        logits = (states.to(weight.dtype) * weight).sum(-1) + (0.0 if self.bias is None else self.bias[ids])
        return (logits if logits.dtype == torch.float64 else logits.float()) / self.temperature


class StatesAndHead(NamedTuple):
    """A network's states `(N, D)` before its head, and the head."""

    states: Tensor
    head: Head


@torch.no_grad()
def soft_states(policy: StatesAndHead, reference: StatesAndHead, critic: StatesAndHead) -> tuple[Tensor, Tensor]:
    """[`~targets.soft_state`] of `N` tokens: `V` and KL, `(N,)` each."""
    parts = [
        soft_state(policy.head.logps(own), reference.head.logps(ref), critic.head.logits(q))
        for own, ref, q in zip(*(net.states.split(CHUNK) for net in (policy, reference, critic)), strict=True)
    ]
    values, divergences = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(divergences)


def policy_losses(policy: StatesAndHead, reference: StatesAndHead, critic: StatesAndHead, beta: float) -> Tensor:
    """
    [`~targets.policy_loss`] of `N` tokens, `(N,)`, with a gradient for the policy's states and head.

    The backward pass recomputes the logits of a chunk, so memory does not grow with `N * V`.
    """

    def of_chunk(own: Tensor, ref: Tensor, q: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logps, values = reference.head.logps(ref), critic.head.logits(q)
        return policy_loss(policy.head.logps(own), ref_logps, values, beta)

    chunks = zip(*(net.states.split(CHUNK) for net in (policy, reference, critic)), strict=True)
    return torch.cat([checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks])
