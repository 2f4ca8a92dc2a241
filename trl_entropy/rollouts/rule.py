"""The base class of rollout rules, each of which decides one thing about the training rollouts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


# A rule's memory between rollouts, by problem key; the same on all ranks
Memory = dict[str, float]

PROBLEMS, TEMPERATURES, COMPLETIONS, GROUPS = "problems", "temperatures", "completions", "groups"
# What a rule may decide, and the methods that decide it
METHODS = {
    PROBLEMS: ("stages", "stage", "candidates", "choose"),
    TEMPERATURES: ("temperature", "visited"),
    COMPLETIONS: ("replace",),
    GROUPS: ("keep", "rounds"),
}


@dataclass(frozen=True)
class RolloutRule:
    """
    A rule on what is sampled for training. It does not know the trainer, and decides the same on all ranks.

    A subclass is a frozen dataclass. It lists in `acts` what it decides, and overrides only the methods for that. TRL
    decides everything else.

    | in `acts` | methods |
    |---|---|
    | `problems` | `stages`, `stage`, `candidates`, `choose` |
    | `temperatures` | `temperature`, `visited` |
    | `completions` | `replace` |
    | `groups` | `reward_func`, `keep`, `rounds` |
    """

    # The source of its formula: "paper", "code" (the authors'), or "style" (ours, after the little that is published)
    origin: ClassVar[str] = "paper"
    acts: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def overrides(cls, *methods: str) -> bool:
        """Whether it overrides one of these methods."""
        return any(getattr(cls, method) is not getattr(RolloutRule, method) for method in methods)

    @property
    def columns(self) -> tuple[str, ...]:
        """The dataset columns that it reads."""
        return ()

    def stages(self, values: Callable[[str], Sequence], count: int) -> list[list[int]] | None:
        """
        The problems of each stage of the run, or `None` for a single stage with all problems.

        Args:
            values (`Callable[[str], Sequence]`):
                Returns the dataset column with a name.
            count (`int`):
                Number of problems in the dataset.
        """
        return None

    def stage(self, current: int, passes: float, progress: float) -> int:
        """The next stage, after `passes` over the current one and with the share `progress` of the run complete."""
        return current

    def candidates(self, count: int) -> int:
        """Number of problems to draw, so that `count` of them can be chosen."""
        return count

    def choose(self, perplexities: Callable[[], Sequence[float]], candidates: int, count: int, progress: float):
        """The drawn problems to train on: `count` places among `candidates`."""
        return list(range(count))

    def temperature(self, memory: Memory, key: str, temperature: float) -> float:
        """The sampling temperature for a problem, where `temperature` is the run's."""
        return temperature

    def visited(self, memory: Memory, key: str, rewards: Tensor, temperature: float) -> Memory:
        """The memory after a group of this problem with rewards `(G,)`, where `temperature` is the run's."""
        return memory

    def replace(self, rewards: Tensor) -> Tensor:
        """Bool `(groups, G)`: the completions that stored solutions may replace, given the rewards `(groups, G)`."""
        return torch.zeros_like(rewards, dtype=torch.bool)

    @property
    def reward_func(self) -> str | None:
        """The reward function whose rewards `keep` gets; `None` for the weighted sum of all."""
        return None

    def keep(self, rewards: Tensor) -> Tensor:
        """Bool `(groups,)`: the groups to train on, given the rewards `(groups, G)`."""
        return torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)

    @property
    def rounds(self) -> int:
        """Maximum number of additional rounds of sampling to replace groups that were not kept."""
        return 0


def check_answers(what: str, rule: RolloutRule) -> None:
    """Raise `ValueError` unless the rule's `acts` and the methods that it overrides agree."""
    for name in sorted(rule.acts - METHODS.keys()):
        raise ValueError(f"{what} lists {name!r} in acts, which a rule cannot decide. Allowed: {', '.join(METHODS)}")
    answered = {name for name, methods in METHODS.items() if rule.overrides(*methods)}
    for name in sorted(rule.acts - answered):
        raise ValueError(f"{what} lists {name!r} in acts: override {' or '.join(METHODS[name])}, or drop {name!r}")
    for name in sorted(answered - rule.acts):
        raise ValueError(
            f"{what} overrides {' or '.join(METHODS[name])}: add {name!r} to acts, or the method is never called"
        )
    if not rule.acts:
        raise ValueError(f"{what} decides nothing: list in acts what it decides. Allowed: {', '.join(METHODS)}")


def given_images(rules: Iterable[str]) -> ValueError:
    """The error for these rules and problems with images, of which the rules would only see the text."""
    return ValueError(
        f"rollout_rules ({', '.join(rules)}) only work on text problems, and these have images: drop the rules"
    )


def check_sources(rules: Mapping[str, RolloutRule], tools, rollout_func, environments) -> None:
    """
    Raise `ValueError` for rules that do not work with tools, a `rollout_func` or environments.

    Args:
        rules (`Mapping[str, RolloutRule]`):
            The rules by name.
        tools, rollout_func, environments:
            The trainer's arguments; empty or `None` if not given.
    """
    for name, rule in rules.items():
        what, shared = f"rollout_rules.{name}", tools or rollout_func is not None or environments
        if COMPLETIONS in rule.acts and shared:
            raise ValueError(
                f"{what} replaces completions, which tools, an environment or a rollout_func also shape: drop one of "
                "the two"
            )
        # a turn has only some of the rows, so each would get another row's temperature
        if TEMPERATURES in rule.acts and shared:
            raise ValueError(
                f"{what} samples all completions together, each at its own temperature, but with tools, an "
                "environment or a rollout_func some completions continue alone: drop one of the two"
            )
        if environments and rule.overrides("choose"):
            raise ValueError(
                f"{what} reads prompts before sampling, but an environment changes them later, in reset(): drop one "
                "of the two"
            )
