"""What a rollout rule is: an answer to one of the questions that a training rollout asks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


# What a rule remembers from rollout to rollout, by a key of the problem, the same on all ranks
Memory = dict[str, float]

PROBLEMS, TEMPERATURES, COMPLETIONS, GROUPS = "problems", "temperatures", "completions", "groups"
# What a rule may decide, and the methods that answer
METHODS = {
    PROBLEMS: ("stages", "stage", "candidates", "choose"),
    TEMPERATURES: ("temperature", "visited"),
    COMPLETIONS: ("replace",),
    GROUPS: ("keep", "rounds"),
}


@dataclass(frozen=True)
class RolloutRule:
    """
    A rule about what is sampled for training. It knows no trainer; every answer is the same on all ranks.

    A subclass is a frozen dataclass that names in `acts` what it decides, and overrides those methods alone. What no
    rule decides stays TRL's.

    | in `acts` | methods |
    |---|---|
    | `problems` | `stages`, `stage`, `candidates`, `choose` |
    | `temperatures` | `temperature`, `visited` |
    | `completions` | `replace` |
    | `groups` | `reward_func`, `keep`, `rounds` |
    """

    # Where its formula is from: "paper", "code" (the authors'), or "style" (after what little is published)
    origin: ClassVar[str] = "paper"
    acts: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def overrides(cls, *methods: str) -> bool:
        """Whether it answers in one of these methods itself."""
        return any(getattr(cls, method) is not getattr(RolloutRule, method) for method in methods)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the dataset that it reads."""
        return ()

    def stages(self, values: Callable[[str], Sequence], count: int) -> list[list[int]] | None:
        """
        The problems of each stage of the run, or `None` for one stage of all.

        Args:
            values (`Callable[[str], Sequence]`):
                The column of the dataset that has this name.
            count (`int`):
                Number of problems of the dataset.
        """
        return None

    def stage(self, current: int, passes: float, progress: float) -> int:
        """The stage to be in, after `passes` over the current one, with the share `progress` of the run done."""
        return current

    def candidates(self, count: int) -> int:
        """How many problems to draw, so that `count` of them can be chosen."""
        return count

    def choose(self, perplexities: Callable[[], Sequence[float]], candidates: int, count: int, progress: float):
        """Which of the drawn problems to train on: `count` places among `candidates`."""
        return list(range(count))

    def temperature(self, memory: Memory, key: str, temperature: float) -> float:
        """What the completions of a problem are sampled at, where `temperature` is the run's."""
        return temperature

    def visited(self, memory: Memory, key: str, rewards: Tensor, temperature: float) -> Memory:
        """What to remember after a group `(G,)` of this problem, where `temperature` is the run's."""
        return memory

    def replace(self, rewards: Tensor) -> Tensor:
        """Bool `(groups, G)`: which completions may give way to stored solutions, from the rewards `(groups, G)`."""
        return torch.zeros_like(rewards, dtype=torch.bool)

    @property
    def reward_func(self) -> str | None:
        """The reward function whose rewards `keep` is asked about; `None` for the weighted sum of all."""
        return None

    def keep(self, rewards: Tensor) -> Tensor:
        """Bool `(groups,)`: which groups to train on, from the rewards `(groups, G)`."""
        return torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)

    @property
    def rounds(self) -> int:
        """How often at most to sample further problems in place of the groups that were not kept."""
        return 0


def check_answers(what: str, rule: RolloutRule) -> None:
    """Raise `ValueError` unless a rule names in `acts` the questions that it answers, and answers those it names."""
    for name in sorted(rule.acts - METHODS.keys()):
        raise ValueError(f"{what} names {name!r} in acts, which is not a question. Allowed: {', '.join(METHODS)}")
    answered = {name for name, methods in METHODS.items() if rule.overrides(*methods)}
    for name in sorted(rule.acts - answered):
        raise ValueError(f"{what} names {name!r} in acts: override {' or '.join(METHODS[name])}, or drop the name")
    for name in sorted(answered - rule.acts):
        raise ValueError(f"{what} overrides {' or '.join(METHODS[name])}: name {name!r} in acts, or it is not asked")
    if not rule.acts:
        raise ValueError(f"{what} decides nothing: name in acts what it does. Allowed: {', '.join(METHODS)}")


def given_images(rules: Iterable[str]) -> ValueError:
    """The error for rules of these names and problems with images, of which they would see the text alone."""
    return ValueError(f"rollout_rules ({', '.join(rules)}) are for problems in text, and these have images")


def check_sources(rules: Mapping[str, RolloutRule], tools, rollout_func, environments) -> None:
    """
    Raise `ValueError` for rules that cannot act on completions which others have a part in.

    Args:
        rules (`Mapping[str, RolloutRule]`):
            The rules by name.
        tools, rollout_func, environments:
            What the trainer was given; empty or `None` if nothing.
    """
    for name, rule in rules.items():
        what, shared = f"rollout_rules.{name}", tools or rollout_func is not None or environments
        if COMPLETIONS in rule.acts and shared:
            raise ValueError(
                f"{what} replaces completions, and tools, an environment or a rollout_func have a part in them: drop "
                "one of the two"
            )
        if TEMPERATURES in rule.acts and shared:  # a turn is of some rows, and each would get that of another
            raise ValueError(
                f"{what} samples all completions together, each at its own temperature, and with tools, an "
                "environment or a rollout_func some continue alone: drop one of the two"
            )
        if environments and rule.overrides("choose"):
            raise ValueError(
                f"{what} looks at prompts before they are sampled, and an environment changes them later, in reset(): "
                "drop one of the two"
            )
