"""All measures of an optimizer step, and the values computed from their means on the host."""

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from ..checks import check_saved
from ..control.signals import MASS, is_own, own_signal
from ..rules.compose import evaluate
from ..rules.rule import Rule
from ..rules.tokens import Tokens
from .contexts import samples_per_context
from .covariance import covariance, covariance_parts
from .entropy import entropy_by_correctness, entropy_by_position, entropy_by_sign, entropy_of_prompt
from .entropy_change import change_parts, predicted_change
from .groups import outcomes, votes
from .means import Means
from .mismatch import mismatch
from .noise import GradientNoise, noise_share
from .quadrants import quadrants
from .rules import WHY_RULES, Idle, rule_means, touched, watched_entropy
from .staleness import staleness
from .surrogate import gradient_mass, positive_share, surrogate_slopes


LEVELS = ("none", "basic", "full")
# Functions of tokens, and functions of tokens and the slopes of the surrogate
OF_TOKENS = (
    *(entropy_by_sign, entropy_by_correctness, entropy_by_position, quadrants, covariance_parts, staleness),
    mismatch,
)
OF_SLOPES = (gradient_mass, change_parts)
Slopes = Callable[[Tokens, Tensor], Tensor]


class StepMeasures:
    """
    All measures of the optimizer steps of a run: sums over micro-batches, then means.

    Args:
        level (`str`):
            "none" only measures the controllers' signals; "basic" adds everything that costs next to nothing; "full"
            adds what needs another pass of the LM head, or the texts.
        signals (`Collection[str]`, *optional*):
            The signals that controllers read. For rules among them, the entropy of their tokens is measured; for
            functions of tokens, the mean over the trained tokens.
        slopes (`Slopes`, *optional*, defaults to [`surrogate_slopes`]):
            Gives the slopes of the surrogate from tokens and effective advantages. If `None`, the measures that need
            them are left out.

    Attributes:
        sums ([`Means`]): the values added since the last optimizer step.
        last (`dict[str, float]`): the means of the last optimizer step, on all ranks.
    """

    def __init__(self, level: str, signals: Collection[str] = (), slopes: Slopes | None = surrogate_slopes):
        self.full, self.none = level == "full", level == "none"
        self.signals = signals
        asked = (gradient_mass,) if any(name.startswith(MASS) for name in signals) else ()
        self._of_slopes = asked if self.none else OF_SLOPES
        self._own_signals = {name: own_signal("controllers", name) for name in signals if is_own(name)}
        self.slopes = slopes
        self.last: dict[str, float] = {}
        self.sums = Means()
        self._idle = Idle(WHY_RULES)
        self._gradients = GradientNoise()
        self._predicted: dict[str, float] = {}

    @property
    def needs(self) -> set[str]:
        """The facts of tokens that it reads besides those that are always there."""
        if not self.full:
            return set()
        return {"entropies_at_one", "prompt_entropies"} | ({"expected_discriminator"} if self.slopes else set())

    def add(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add `(sum, count)` pairs of a micro-batch; no host sync."""
        self.sums.add(parts)

    def add_rules(self, section: str, rules: Mapping[str, Rule], values: Mapping[str, Tensor], tokens: Tokens) -> None:
        """Add the effect of a section's rules in a micro-batch, from their `(B, T)` values."""
        self.add(rule_means(section, values, tokens) | watched_entropy(section, rules, values, tokens, self.signals))

    def add_tokens(self, tokens: Tokens, effective: Tensor) -> None:
        """Add all measures of a micro-batch; `effective` are its advantages in the loss, `(B, T)`."""
        values = [measure(tokens) for measure in ((entropy_by_sign,) if self.none else OF_TOKENS)]
        if self.slopes and self._of_slopes:
            slopes = self.slopes(tokens, effective)
            values += [measure(tokens, slopes) for measure in self._of_slopes]
        self.sums.add_values({name: value for part in values for name, value in part.items()})
        self.sums.add_values(entropy_of_prompt(tokens))
        own = evaluate("signals", self._own_signals, tokens)
        self.sums.add_values({name: (values, tokens.mask) for name, values in own.items()})

    def add_gradient(self, gradient: Tensor) -> None:
        """Add this rank's part of the optimizer step's gradient, `(D,)`, before the step ends; no host sync."""
        self.add(self._gradients.add(gradient))

    def of_rollout(
        self, rewards: Tensor, answers: Callable[[], Sequence[str | None]], contexts: Callable[[], Tensor]
    ) -> dict[str, float]:
        """
        The measures of a new rollout, from the rewards of its groups `(groups, G)` and, if needed, its answers and the
        contexts of its tokens, `(B, T)`.
        """
        self._gradients.begin_rollout()
        of_groups = outcomes(rewards) | (votes(answers(), rewards.shape[1]) if self.full else {})
        return of_groups | ({} if self.none else samples_per_context(contexts()))

    def end_step(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """
        The means of the optimizer step and the values computed from them, with one call of `over_ranks` and one host
        sync.

        The change of entropy is from the previous step to this one: as observed, and as predicted from the previous
        step's tokens.
        """
        means = self.sums.reduce(over_ranks)
        self._idle.look(touched(means))
        before, entropy = self.last.get("entropy"), means.get("entropy")
        change = {}
        if before is not None and entropy is not None:
            change = {**self._predicted, "entropy_change/observed": entropy - before}
        self._predicted = predicted_change(means)
        kept = {name: mean for name, mean in means.items() if not name.startswith("_")}
        self.last = kept | positive_share(means) | covariance(means) | noise_share(means) | change
        return self.last

    def state_dict(self) -> dict[str, dict[str, float]]:
        """The means of the last step, and the change of entropy that they predict."""
        return {"last": self.last, "predicted": self._predicted}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]], source: str) -> None:
        """Restore `state_dict()`. Raises `ValueError` if the state in `source` is damaged."""
        numbers = {str: float}
        check_saved(source, state, {"last": numbers, "predicted": numbers}, "measures")
        self.last, self._predicted = dict(state["last"]), dict(state["predicted"])
