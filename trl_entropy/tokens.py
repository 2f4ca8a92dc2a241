"""Floor 0: the facts about every completion token when the loss is computed, and what a rule on them is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch
from torch import Tensor


def _only_here(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class Tokens:
    r"""
    What is known about every completion token at the moment the loss is computed. All tensors are `(B, T)`.

    Positions outside `mask` are set to `0` here, once, so that no rule can see padding (which may hold NaN).

    Args:
        logps (`torch.Tensor`):
            Log-probability \\( \log \pi_\theta(y_t) \\) of the sampled token, in nats. Carries the gradient for loss
            terms; detached for weights.
        old_logps (`torch.Tensor`):
            Log-probability under the policy that produced the rollout; equals `logps` when strictly on-policy.
        entropies (`torch.Tensor`):
            Entropy \\( H(\pi_\theta(\cdot \mid y_{<t})) \\) in nats, at the sampling temperature.
        advantages (`torch.Tensor`):
            TRL's advantage of the completion, repeated along `T`.
        mask (`torch.Tensor`):
            Bool: `True` where the token is trained on.
        step (`int`, *optional*, defaults to `0`):
            Optimizer step; the seed of every random choice.
        pool (`Callable[[Tensor], Tensor]`, *optional*):
            1-D values of this rank -> the values of all ranks. Every statistic over tokens is taken over the pool.
    """

    logps: Tensor
    old_logps: Tensor
    entropies: Tensor
    advantages: Tensor
    mask: Tensor
    step: int = 0
    pool: Callable[[Tensor], Tensor] = _only_here

    def __post_init__(self):
        if self.mask.dtype != torch.bool or self.mask.dim() != 2:
            raise ValueError(f"mask must be a bool tensor (B, T), got {self.mask.dtype} {tuple(self.mask.shape)}")
        for name in ("logps", "old_logps", "entropies", "advantages"):
            value = getattr(self, name)
            if value.shape != self.mask.shape:
                raise ValueError(f"{name} must have mask's shape {tuple(self.mask.shape)}, got {tuple(value.shape)}")
            object.__setattr__(self, name, torch.where(self.mask, value, 0.0))

    def detach(self) -> "Tokens":
        """The same facts without gradient."""
        return replace(self, logps=self.logps.detach(), entropies=self.entropies.detach())


def knob(
    default: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    raises_entropy: bool | None = None,
    flag: bool = False,
) -> float:
    """
    A rule's numeric parameter that a controller may turn.

    Args:
        default (`float`):
            Value when nothing is set.
        low, high (`float`, *optional*):
            Closed range of legal values; an infinite bound means none.
        raises_entropy (`bool`, *optional*):
            Whether a larger value raises the policy's entropy; `None` if unknown.
        flag (`bool`, *optional*, defaults to `False`):
            Whether the parameter is a plain flag of the config instead of an entry of its mapping.
    """
    return field(default=default, metadata={"low": low, "high": high, "raises_entropy": raises_entropy, "flag": flag})


def check_number(name: str, value, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise `ValueError` unless `value` is a finite number in `[low, high]`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        at_least = "" if math.isinf(low) else f" >= {low:g}"
        at_most = "" if math.isinf(high) else f" <= {high:g}"
        both = " and" if at_least and at_most else ""
        raise ValueError(f"{name} must be a number{at_least}{both}{at_most}, got {value!r}")


@dataclass(frozen=True)
class Rule(ABC):
    """A pure function of tokens: what a weight and a loss term are. Subclasses are final frozen dataclasses."""

    # False only if the value is the same for all tokens of a completion
    token_selective: ClassVar[bool] = True

    def __post_init__(self):
        for parameter in fields(self):
            if "low" in parameter.metadata:
                bounds = parameter.metadata["low"], parameter.metadata["high"]
                check_number(parameter.name, getattr(self, parameter.name), *bounds)

    @property
    def neutral(self) -> bool:
        """Whether these parameters leave the loss as it is."""
        return False

    @abstractmethod
    def __call__(self, tokens: Tokens) -> Tensor:
        """`(B, T)` values, one per token; what stands outside `tokens.mask` is ignored."""
