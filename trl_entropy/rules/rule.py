"""The base class of rules on tokens."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, get_args

from torch import Tensor

from ..checks import check_number, unknown
from .looks import Look
from .tokens import Tokens


def knob(
    default: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    raises_entropy: bool | None = None,
    flag: bool = False,
) -> float:
    """
    A numeric parameter of a rule that a controller may turn.

    Args:
        default (`float`):
            Value when nothing is set.
        low, high (`float`, *optional*):
            Closed range of legal values; an infinite bound means no limit.
        raises_entropy (`bool`, *optional*):
            Whether a larger value raises the policy's entropy; `None` if unknown.
        flag (`bool`, *optional*, defaults to `False`):
            Whether the parameter is a plain flag of the config instead of an entry in its mapping.
    """
    return field(default=default, metadata={"low": low, "high": high, "raises_entropy": raises_entropy, "flag": flag})


# `pool`; a fact of Tokens that may be None; that entropies carry their gradient; or `clipped`
# of a rule that means nothing unless TRL clips the ratios of tokens
Need = Literal[
    "clipped",
    "completions",
    "entropies_at_one",
    "entropy_gradient",
    "expected_discriminator",
    "group_logps",
    "group_rewards",
    "num_tokens",
    "offline",
    "old_entropies",
    "pool",
    "prompt_entropies",
    "ref_logps",
    "sampling_logps",
]


@dataclass(frozen=True)
class Rule(ABC):
    """A pure function of tokens: a weight, a bonus or a loss term. Subclasses are final frozen dataclasses."""

    # The source of its formula: "paper", "code" (the authors'), or "style" (ours, after the little that is published)
    origin: ClassVar[str] = "paper"
    # False only if the value is the same for all tokens of a completion
    token_selective: ClassVar[bool] = True
    # True only for a bonus that replaces TRL's advantage, so that a weight would scale an advantage that does not
    # count
    replaces_advantage: ClassVar[bool] = False
    # Whether it only acts on groups that are all correct
    only_solved_groups: ClassVar[bool] = False
    # What it reads besides the facts that are always there: names of other facts, and looks at the vocabulary
    needs: ClassVar[frozenset[Need | Look]] = frozenset()
    # For a loss term: True if it adds to or replaces TRL's surrogate token by token, and so is averaged as `loss_type`
    # averages the surrogate; False if it is averaged over all trained tokens of the optimizer step
    follows_loss_type: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.needs, frozenset):
            raise ValueError(f"{type(self).__name__}.needs must be a frozenset of names, got {self.needs!r}")
        names = {need for need in self.needs if not isinstance(need, Look)}
        for need in names - set(get_args(Need)):
            raise unknown(f"entry of {type(self).__name__}.needs", need, get_args(Need))
        for parameter in fields(self):
            if "low" in parameter.metadata:
                bounds = parameter.metadata["low"], parameter.metadata["high"]
                check_number(parameter.name, getattr(self, parameter.name), *bounds)

    @property
    def neutral(self) -> bool:
        """Whether these parameters leave the loss unchanged."""
        return False

    @property
    def least_clip_range(self) -> tuple[float, float]:
        """The smallest `epsilon` and `epsilon_high` it allows in TRL: a narrower clip would act before this rule."""
        return 0.0, 0.0

    @property
    def least_generations(self) -> int:
        """The smallest `num_generations` that it allows."""
        return 1

    @abstractmethod
    def __call__(self, tokens: Tokens) -> Tensor:
        """`(B, T)` values, one per token; values outside `tokens.mask` are ignored."""

    def watched(self, tokens: Tokens, values: Tensor) -> tuple[Tensor, Tensor]:
        """The rule's signal, given its values: entropies in nats, and bool where they count, both `(B, T)`."""
        return tokens.entropies, values != 0


@dataclass(frozen=True)
class PlainFunction(Rule):
    """A rule given as a plain function of tokens."""

    function: Callable[[Tokens], Tensor]

    def __call__(self, tokens: Tokens) -> Tensor:
        return self.function(tokens)
