"""The signals that a controller may read."""

import inspect
from collections.abc import Callable, Collection

from torch import Tensor

from ..checks import imported, unknown
from ..rules.tokens import Tokens


ENTROPY = "entropy"
AT_ONE = "entropy/temperature_1"
MASS = "gradient_mass/"
# name -> what it is; one value per optimizer step, over all ranks
SIGNALS = {
    ENTROPY: "Entropy (nats) over all trained tokens, at the sampling temperature",
    AT_ONE: "Entropy (nats) over all trained tokens, at temperature 1",
    "entropy/positive_advantage": "Entropy (nats) over the tokens with positive advantage",
    "entropy/negative_advantage": "Entropy (nats) over the tokens with negative advantage",
    "gradient_mass/positive": "Total pull of the tokens with positive advantage on their logits",
    "gradient_mass/negative": "Total pull of the tokens with negative advantage on their logits",
    "gradient_mass/positive_share": "Share of the total pull that comes from tokens with positive advantage",
    "clip_ratio/low_mean": "TRL's share of tokens below the clip range",
    "clip_ratio/high_mean": "TRL's share of tokens above the clip range",
    "clip_ratio/region_mean": "TRL's share of tokens outside the clip range",
    "reward": "TRL's mean reward of each new rollout batch",
}
# The signals that a plain GRPOTrainer has
TRL_SIGNALS = (ENTROPY, *(name for name in SIGNALS if not name.startswith((ENTROPY, MASS))))


def is_entropy(signal: str) -> bool:
    """Whether a signal is an entropy, in nats."""
    return signal.split("/")[0] == ENTROPY


def is_measured(signal: str) -> bool:
    """Whether a signal comes from the tokens of an optimizer step, not from TRL's log."""
    return signal.startswith((ENTROPY, MASS)) or is_own(signal)


def needs_clipping(name: str) -> bool:
    """Whether a signal or a knob only means something where TRL clips ratios."""
    return name.startswith(("clip_ratio/", "epsilon_"))


def rule_signal(section: str, name: str) -> str:
    """The signal that a rule provides: `entropy/loss_terms.siren`."""
    return f"{ENTROPY}/{section}.{name}"


def is_own(signal: str) -> bool:
    """Whether a signal is the dotted path of a function of tokens."""
    return "." in str(signal) and "/" not in str(signal)


def own_signal(what: str, path: str) -> Callable[[Tokens], Tensor]:
    """The function from tokens to `(B, T)` values at a dotted path. Raises `ValueError` if there is none."""
    function = imported(f"signal in {what}", path)
    if not callable(function) or inspect.isclass(function):
        raise ValueError(f"signal in {what}: {path} must be a function of tokens, got {function!r}")
    return function


def check_signal(what: str, signal: str, rules: Collection[str]) -> None:
    """Raise `ValueError` unless a signal is known, one of `rules` (their [`rule_signal`]s) or a function."""
    if is_own(signal):
        own_signal(what, signal)
    elif signal not in SIGNALS and signal not in rules:
        raise unknown(f"signal in {what}", signal, (*SIGNALS, *rules))


def needs(signals: Collection[str]) -> set[str]:
    """The facts of tokens that these signals read in addition to those that are always there."""
    return {"entropies_at_one"} if AT_ONE in signals else set()
