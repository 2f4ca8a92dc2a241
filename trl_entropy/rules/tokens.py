"""The facts about every completion token at the time of the loss."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .looks import Look
from .pool import Pool


UNNAMED = object()  # in the place of a fact that no active rule lists in `needs`: reading it is an error
REQUIRED = ("logps", "entropies", "advantages")
PER_TOKEN = (
    *(*REQUIRED, "old_logps", "sampling_logps", "old_entropies", "ref_logps", "expected_discriminator"),
    "entropies_at_one",
)


@dataclass(frozen=True)
class Tokens:
    r"""
    The facts about every completion token at the time of the loss. Tensors are `(B, T)` unless another shape is given.

    Positions outside `mask` are set to `0` here, once, so that no rule sees padding (which may hold NaN).

    Args:
        logps (`torch.Tensor`):
            Log-probability \\( \log \pi_\theta(y_t) \\) of the sampled token, in nats. Carries the gradient for loss
            terms; detached for weights.
        old_logps (`torch.Tensor`):
            Log-probability under the policy that produced the rollout; `None` when strictly on-policy: it then equals
            `logps`.
        entropies (`torch.Tensor`):
            Entropy \\( H(\pi_\theta(\cdot \mid y_{<t})) \\) in nats, at the sampling temperature.
        advantages (`torch.Tensor`):
            TRL's advantage of the completion, repeated along `T`.
        mask (`torch.Tensor`):
            Bool: `True` where the token is trained on.
        step (`int`, *optional*, defaults to `0`):
            Optimizer step; the seed of every random choice.
        clip_range (`tuple[float, float]`, *optional*, defaults to `(0.2, 0.2)`):
            \\( \epsilon_{\text{low}}, \epsilon_{\text{high}} \\) in force: TRL clips ratios outside
            \\( [1 - \epsilon_{\text{low}}, 1 + \epsilon_{\text{high}}] \\).
        pool ([`~pool.Pool`], *optional*):
            The tokens of the whole optimizer step. Every statistic over tokens is taken over it. By default it only
            has these tokens.
        num_tokens (`torch.Tensor`, *optional*):
            The number by which the sum of a loss term over the optimizer step and all ranks is divided: TRL's
            `num_items_in_batch` per update, so the mean over the updates of a rollout batch.
        completions (`torch.Tensor`, *optional*):
            `(B,)` int64: an identifier of each completion, the same wherever the completion is in the batch.
        sampling_logps (`torch.Tensor`, *optional*):
            Log-probability from the engine that sampled the token; NaN where the engine gave none, `None` if TRL has
            none for the whole batch. With `top_p`, `top_k` or `min_p` it refers to the tokens that these leave.
        old_entropies (`torch.Tensor`, *optional*):
            Entropy under the policy that produced the rollout; equals `entropies` when strictly on-policy.
        ref_logps (`torch.Tensor`, *optional*):
            Log-probability under the reference policy; only with `beta > 0`.
        staleness (`torch.Tensor`, *optional*):
            How many versions the policy is ahead of the one that sampled the token, in optimizer steps since the
            rollout, or in weight syncs with `AsyncGRPOTrainer`; 0 by default.
        rewards (`torch.Tensor`, *optional*):
            `(B,)`: the reward of the completion, the weighted sum over the reward functions; NaN where there was none.
        group_rewards (`torch.Tensor`, *optional*):
            `(B, G)`: the rewards of the completion's whole group; NaN where there was none.
        group_logps (`torch.Tensor`, *optional*):
            `(B, G)`: the mean log-probability, in nats per token, of every completion of the group under the policy
            that produced the rollout; NaN where there is no trained token.
        expected_discriminator (`torch.Tensor`, *optional*):
            \\( \sum_v \pi_v^2 (H + \log \pi_v) \\), over the whole vocabulary.
        entropies_at_one (`torch.Tensor`, *optional*):
            Entropy in nats at temperature 1.
        prompt_entropies (`torch.Tensor`, *optional*):
            `(B, P - 1)`: entropy in nats at the prompt's tokens, at the sampling temperature; NaN where there is no
            next token, or none to predict it from.
        offline (`torch.Tensor`, *optional*):
            Bool `(B,)`: whether the completion is a stored solution that no policy sampled; all false by default.
        vocabulary (`Mapping[Look, torch.Tensor]`, *optional*):
            The results of looks at the whole vocabulary. [`~Tokens.look`] reads them.
    """

    logps: Tensor
    old_logps: Tensor | None
    entropies: Tensor
    advantages: Tensor
    mask: Tensor
    step: int = 0
    clip_range: tuple[float, float] = (0.2, 0.2)
    pool: Pool | None = None
    num_tokens: Tensor | None = None
    completions: Tensor | None = None
    sampling_logps: Tensor | None = None
    old_entropies: Tensor | None = None
    ref_logps: Tensor | None = None
    staleness: Tensor | None = None
    rewards: Tensor | None = None
    group_rewards: Tensor | None = None
    group_logps: Tensor | None = None
    expected_discriminator: Tensor | None = None
    entropies_at_one: Tensor | None = None
    prompt_entropies: Tensor | None = None
    offline: Tensor | None = None
    vocabulary: Mapping[Look, Tensor] = field(default_factory=dict)

    def __getattribute__(self, name: str):
        value = super().__getattribute__(name)
        if value is UNNAMED:
            raise ValueError(f"a rule reads tokens.{name} without listing it: add {name!r} to the rule's `needs`")
        return value

    def __post_init__(self):
        if self.mask.dtype != torch.bool or self.mask.dim() != 2:
            raise ValueError(f"mask must be a bool tensor (B, T), got {self.mask.dtype} {tuple(self.mask.shape)}")
        for name in PER_TOKEN:
            value = vars(self)[name]
            if name not in REQUIRED and not isinstance(value, Tensor):  # None, or unnamed
                continue
            object.__setattr__(self, name, self._checked(name, value))
        seen = {look: self._checked(look, value) for look, value in self.vocabulary.items()}
        object.__setattr__(self, "vocabulary", seen)
        self._default("old_logps", lambda: self._detached["logps"])
        self._default("old_entropies", lambda: self._detached["entropies"])
        self._default("completions", lambda: torch.arange(len(self.mask), device=self.mask.device))
        self._default("staleness", lambda: torch.zeros_like(self._detached["logps"]))
        self._default("offline", lambda: self.mask.new_zeros(len(self.mask)))
        self._default("pool", lambda: Pool([self.detach()]))

    def _checked(self, name: object, value: Tensor) -> Tensor:
        if value.shape != self.mask.shape:
            raise ValueError(f"{name} must have mask's shape {tuple(self.mask.shape)}, got {tuple(value.shape)}")
        return self.trained(value)

    def _default(self, name: str, make: Callable[[], Any]) -> None:
        if vars(self)[name] is None:
            object.__setattr__(self, name, make())

    @cached_property
    def _detached(self) -> dict[str, Tensor]:
        return {"logps": self.logps.detach(), "entropies": self.entropies.detach()}

    def look(self, look: Look) -> Tensor:
        """The result of a look at the vocabulary, `(B, T)`. Raises `ValueError` if no active rule lists it."""
        if look not in self.vocabulary:
            raise ValueError(f"a rule reads {look} without listing it: add it to the rule's `needs`")
        return self.vocabulary[look]

    @cached_property
    def outside(self) -> Tensor:
        """Bool: where no token is trained on."""
        return ~self.mask

    @cached_property
    def positive(self) -> Tensor:
        """Bool: where the advantage is above 0; false outside the mask."""
        return self.advantages > 0

    @cached_property
    def negative(self) -> Tensor:
        """Bool: where the advantage is below 0; false outside the mask."""
        return self.advantages < 0

    @property
    def ratios(self) -> Tensor:
        r"""Importance ratio \\( r_t = \pi_\theta(y_t) / \pi_{\text{old}}(y_t) \\)."""
        return torch.exp(self.logps - self.old_logps)

    @property
    def clipped(self) -> Tensor:
        """Bool: where TRL's clip has stopped the gradient, at the clip range in force."""
        return self.leaves(self.ratios, *self.clip_range)

    def leaves(self, ratios: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        r"""Bool: where ratios leave \\( [1 - \text{low}, 1 + \text{high}] \\) in the direction of the advantage."""
        return (self.positive & (ratios > 1 + high)) | (self.negative & (ratios < 1 - low))

    def trained(self, values: Tensor) -> Tensor:
        """The values, with 0 outside the mask."""
        return values.masked_fill(self.outside, 0)

    def mean_over_row(self, values: Tensor) -> Tensor:
        """`(B,)`: the mean of `(B, T)` values over the trained tokens of each completion; 0 if it has none."""
        return self.trained(values).sum(-1) / self.mask.sum(-1).clamp(min=1)

    def noise(self) -> Tensor:
        """
        `(B, T)` uniform random numbers in [0, 1), float32: the randomness of a rule.

        They depend only on step, completion and position, not on seeds, ranks or the order of the batch.
        """
        places = torch.arange(self.mask.shape[1], device=self.mask.device)
        return hashed(self.completions.unsqueeze(1), places.unsqueeze(0), self.step)

    def detach(self) -> "Tokens":
        """The same facts without gradient."""
        seen = {look: value.detach() for look, value in self.vocabulary.items()}
        return self._with(**self._detached, vocabulary=seen)

    def with_pool(self, pool: Pool) -> "Tokens":
        """The same facts with another pool."""
        return self._with(pool=pool)

    def _with(self, **changes) -> "Tokens":
        same = copy(self)  # not `replace`: the facts are already checked and masked
        for name, value in changes.items():
            object.__setattr__(same, name, value)
        return same


def is_correct(rewards: Tensor) -> Tensor:
    """Bool, same shape: whether the reward is above 0.5; without a reward (NaN) a completion is not correct."""
    return rewards > 0.5


def is_incorrect(rewards: Tensor) -> Tensor:
    """Bool, same shape: whether there is a reward and the completion is not correct."""
    return rewards <= 0.5


def mixed(values: Tensor) -> Tensor:
    """A hash of every int64 as int64: each bit depends on all bits."""
    for factor in (-4658895280553007687, -7723592293110705685):
        values = (values ^ ((values >> 30) & (2**34 - 1))) * factor
    return values ^ ((values >> 31) & (2**33 - 1))


def token_hashes(ids: Tensor, mask: Tensor, start: int) -> Tensor:
    """`(B, T)` int64: a hash of each token and its place, counted from `start`; 0 outside the mask."""
    places = torch.arange(start, start + ids.shape[1], device=ids.device)
    return torch.where(mask.bool(), mixed(mixed(ids.long()) + places), 0)


def hashed(*keys: Tensor | int) -> Tensor:
    """Uniform random numbers in [0, 1), float32, from integer keys; the first key is an int64 tensor."""
    state = torch.zeros_like(keys[0])
    for key in keys:
        state = mixed(state + key + 7046029254386353131)
    return ((state >> 40) & (2**24 - 1)).float() / 2**24
