"""Looks at the whole vocabulary: functions of the distribution at every token, all computed in one pass."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class Distributions(NamedTuple):
    """
    The policy's distributions at a number of tokens.

    Args:
        logps (`torch.Tensor`):
            `(N, V)`: log-probabilities of the vocabulary in nats, at the sampling temperature.
        sampled (`torch.Tensor`):
            `(N,)` int64: the sampled tokens.
        temperatures (`torch.Tensor`):
            `(N, 1)`: the sampling temperature.
    """

    logps: Tensor
    sampled: Tensor
    temperatures: Tensor


@dataclass(frozen=True)
class Look(ABC):
    """
    A function of the distribution at a token. A rule lists it in `needs` and reads it with `tokens.look`.

    Subclasses are frozen dataclasses, so that rules with the same look share one result.
    """

    # Whether loss terms receive its gradient
    has_gradient: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, at: Distributions) -> Tensor:
        """`(N,)`: one value per token."""


@dataclass(frozen=True)
class ExpectedDiscriminator(Look):
    r"""\\( \mathbb{E}_{v \sim \pi}[\pi_v (H + \log \pi_v)] = H \sum_v \pi_v^2 + \sum_v \pi_v^2 \log \pi_v \\)."""

    def __call__(self, at: Distributions) -> Tensor:
        squares = torch.exp(2 * at.logps)
        return entropy(at.logps) * squares.sum(-1) + (squares * at.logps).sum(-1)


@dataclass(frozen=True)
class Entropy(Look):
    """Entropy in nats at the sampling temperature."""

    def __call__(self, at: Distributions) -> Tensor:
        return entropy(at.logps)


@dataclass(frozen=True)
class EntropyAtOne(Look):
    """Entropy in nats at temperature 1."""

    def __call__(self, at: Distributions) -> Tensor:
        return entropy((at.logps * at.temperatures).log_softmax(-1))


@dataclass(frozen=True)
class KeptMass(Look):
    r"""
    Log of the mass of the tokens that are likely enough; 0 where the sampled token is not one of them.

    $$
    \log \sum_v \pi_v \, \mathbb{1}[\pi_v \ge \kappa \, m], \qquad m = \max_v \pi_v
    \text{ if } \text{relative}, \quad 1 \text{ otherwise}
    $$

    Without the other tokens, the log-probability of the sampled token is higher by minus this value.

    Args:
        threshold (`float`): \\( \kappa \in (0, 1] \\).
        relative (`bool`): whether the threshold is a share of the largest probability.
    """

    threshold: float
    relative: bool = True

    def __call__(self, at: Distributions) -> Tensor:
        bound = math.log(self.threshold) + (at.logps.amax(-1, keepdim=True) if self.relative else 0.0)
        kept = at.logps >= bound
        mass = (at.logps.exp() * kept).sum(-1)
        return torch.where(kept.gather(-1, at.sampled.unsqueeze(-1)).squeeze(-1), mass.log(), 0.0)


@dataclass(frozen=True)
class TopPEntropy(Look):
    r"""
    Entropy in nats of the distribution cut to its most likely tokens and normalized again.

    $$
    -\sum_{v \in S} q_v \log q_v, \qquad q_v = \pi_v \Big/ \sum_{u \in S} \pi_u
    $$

    \\( S \\) are the most likely tokens up to a mass of \\( p \\), and those as likely as the last of them; the choice
    of \\( S \\) has no gradient. The entropy is 0 where \\( S \\) is empty.

    Args:
        p (`float`): the mass.
        reaching (`bool`): whether the token that reaches \\( p \\) is in \\( S \\), as in nucleus sampling.
    """

    has_gradient: ClassVar[bool] = True

    p: float
    reaching: bool = True

    def __call__(self, at: Distributions) -> Tensor:
        logps = at.logps
        with torch.no_grad():
            ordered = logps.sort(-1, descending=True).values
            mass = ordered.exp().cumsum(-1)
            within = (mass - ordered.exp() if self.reaching else mass) < self.p
            kept = logps >= torch.where(within, ordered, torch.inf).amin(-1, keepdim=True)
        probabilities = logps.exp() * kept
        mass = probabilities.sum(-1)
        some = mass.clamp(min=torch.finfo(mass.dtype).tiny)
        return torch.where(mass > 0, some.log() - (probabilities * logps).sum(-1) / some, 0.0)


@dataclass(frozen=True)
class TopTwoRatio(Look):
    """Probability of the second most likely token divided by that of the most likely one."""

    def __call__(self, at: Distributions) -> Tensor:
        first, second = at.logps.topk(2).values.unbind(-1)
        return (second - first).exp()


@dataclass(frozen=True)
class IsTop1(Look):
    """Bool: whether the sampled token is the most likely one."""

    def __call__(self, at: Distributions) -> Tensor:
        return at.logps.argmax(-1) == at.sampled


@dataclass(frozen=True)
class TopKLogp(Look):
    """Mean log-probability in nats of the `k` most likely tokens, or of all if there are fewer."""

    has_gradient: ClassVar[bool] = True

    k: int

    def __call__(self, at: Distributions) -> Tensor:
        return at.logps.topk(min(self.k, at.logps.shape[-1])).values.mean(-1)


# The facts of tokens that are looks, by name
NAMED: dict[str, Look] = {"entropies_at_one": EntropyAtOne(), "expected_discriminator": ExpectedDiscriminator()}


def looks_among(needs: Collection) -> set[Look]:
    """The looks among the needs of rules, given as objects or by name."""
    return {need for need in needs if isinstance(need, Look)} | {NAMED[name] for name in NAMED.keys() & set(needs)}


def entropy(logps: Tensor) -> Tensor:
    """`(N,)`: entropy in nats of log-probabilities `(N, V)`."""
    return -(logps.exp() * logps).sum(-1)
