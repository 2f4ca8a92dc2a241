"""The plan: all rollout rules of a run, and their memory."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..checks import check_saved
from .rule import COMPLETIONS, GROUPS, PROBLEMS, TEMPERATURES, RolloutRule
from .stream import ProblemStream


class RolloutPlan:
    """
    All decisions of rollout rules on what is sampled for training; the same on all ranks.

    Args:
        rules (`Mapping[str, RolloutRule]`):
            The rules by name.
        count (`int`):
            Number of problems in the dataset; only read if a rule chooses problems.
        values (`Callable[[str], Sequence]`):
            Returns the dataset column with a name.
        seed (`int`):
            Seed for the order of the problems.
    """

    def __init__(self, rules: Mapping[str, RolloutRule], count: int, values: Callable[[str], Sequence], seed: int):
        self.rules = dict(rules)
        self.memory: dict[str, dict[str, float]] = {name: {} for name in self._acting(TEMPERATURES)}
        self.chooses_problems = bool(self._acting(PROBLEMS) or self._acting(GROUPS))
        self.sets_temperatures = bool(self._acting(TEMPERATURES))
        self.replaces_completions = bool(self._acting(COMPLETIONS))
        self.keeps_groups = bool(self._acting(GROUPS))
        self.stage = 0
        self._last: list[list[int]] = []  # of the current rollout, by round
        self._again: list[list[int]] = []  # to sample again after a checkpoint within a rollout
        self._streams: list[ProblemStream] = []
        if self.chooses_problems:
            staged = [stages for rule in self.rules.values() if (stages := rule.stages(values, count))]
            if len(staged) > 1:
                raise ValueError(f"only one rule can split the problems into stages, and {len(staged)} do: keep one")
            stages = staged[0] if staged else [list(range(count))]
            self._streams = [ProblemStream(problems, seed + 1_000_003 * at) for at, problems in enumerate(stages)]

    def _acting(self, what: str) -> dict[str, RolloutRule]:
        return {name: rule for name, rule in self.rules.items() if what in rule.acts}

    def begin(self) -> None:
        """Begin a rollout."""
        self._last = []

    def problems(
        self, count: int, progress: float, perplexities: Callable[[list[int]], Sequence[float]]
    ) -> tuple[list[int], dict[str, float]]:
        """
        The next problems to sample, as row numbers of the dataset, and values to log about them.

        Args:
            count (`int`):
                Number of problems over all ranks.
            progress (`float`):
                Share of the run's steps that are complete.
            perplexities (`Callable[[list[int]], Sequence[float]]`):
                Returns the perplexities of these problems' prompts under the policy that is about to sample.
        """
        chosen, means = self._again.pop(0) if self._again else None, {}
        if chosen is None:
            chosen, means = self._next(count, progress, perplexities)
        self._last.append(chosen)
        return chosen, means

    def _next(self, count: int, progress: float, perplexities: Callable) -> tuple[list[int], dict[str, float]]:
        means: dict[str, float] = {}
        for rule in self._acting(PROBLEMS).values():
            self.stage = rule.stage(self.stage, self._streams[self.stage].passes, progress)
        if len(self._streams) > 1:
            means["stage"] = self.stage
        for rule in self._acting(PROBLEMS).values():
            stream = self._streams[self.stage]
            drawn = max(count, min(rule.candidates(count), len(stream.problems)))  # none of them twice
            if drawn == count:
                continue
            candidates = stream.take(drawn)
            seen: list[float] = []

            def measured(candidates=candidates, seen=seen) -> Sequence[float]:
                seen.extend(perplexities(candidates))
                return seen

            places = rule.choose(measured, drawn, count, progress)
            if seen:
                means |= {
                    "perplexity": sum(seen[place] for place in places) / count,
                    "perplexity_of_candidates": sum(seen) / drawn,
                }
            return [candidates[place] for place in places], means
        return self._streams[self.stage].take(count), means

    def temperatures(self, prompts: Sequence, temperature: float) -> list[float]:
        """The sampling temperature for each of these prompts."""
        found = []
        for prompt in prompts:
            key, value = key_of(prompt), temperature
            for name, rule in self._acting(TEMPERATURES).items():
                value = rule.temperature(self.memory[name], key, value)
            found.append(value)
        return found

    def visited(self, prompts: Sequence, rewards: Tensor, temperature: float) -> None:
        """Remember the groups of a rollout, prompts and rewards `(G,)` of all ranks; `temperature` is the run's."""
        rewards = rewards.cpu()
        for name, rule in self._acting(TEMPERATURES).items():
            for prompt, group in zip(prompts, rewards, strict=True):
                self.memory[name] = rule.visited(self.memory[name], key_of(prompt), group, temperature)

    def replace(self, rewards: Tensor) -> Tensor:
        """Bool `(groups, G)`: the completions that stored solutions may replace."""
        places = torch.zeros_like(rewards, dtype=torch.bool)
        for rule in self._acting(COMPLETIONS).values():
            places |= rule.replace(rewards)
        return places

    def solutions(self, row: Mapping) -> list[str]:
        """The stored solutions of a problem, given as a row of the dataset."""
        found = []
        for rule in self._acting(COMPLETIONS).values():
            for column in rule.columns:
                found += [row[column]] if isinstance(row[column], str) else row[column] or []
        return found

    def keep(self, rewards: Tensor, by_function: Mapping[str, Tensor]) -> Tensor:
        """Bool `(groups,)`: the groups to train on, given the summed rewards and the rewards of each function."""
        kept = torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)
        for rule in self._acting(GROUPS).values():
            kept &= rule.keep(rewards if rule.reward_func is None else by_function[rule.reward_func])
        return kept

    @property
    def rounds(self) -> int:
        """Maximum number of additional rounds of sampling per rollout."""
        return max((rule.rounds for rule in self._acting(GROUPS).values()), default=0)

    def state_dict(self, unfinished: bool) -> dict:
        """The state for a checkpoint; `unfinished` if the checkpoint is within a rollout."""
        return {
            "stage": self.stage,
            "streams": [stream.state_dict() for stream in self._streams],
            "memory": self.memory,
            "unfinished": self._last if unfinished else [],
        }

    def load_state_dict(self, state: dict | None, source: str) -> None:
        """Restore `state_dict()`. Raises `ValueError` if it is missing or damaged, or if other rules wrote it."""
        if state is None:
            raise ValueError(f"{source} has no state of rollout_rules {', '.join(self.rules)}: resume without them")
        check_saved(
            source,
            state,
            {
                "stage": int,
                "streams": [{"taken": int, "passes": int, "next": [int]}],
                "memory": {str: {str: float}},
                "unfinished": [[int]],
            },
            "rollouts",
        )
        if len(state["streams"]) != len(self._streams) or state["memory"].keys() != self.memory.keys():
            raise ValueError(
                f"{source} was written with other rollout_rules ({len(state['streams'])} stages; memories: "
                f"{', '.join(state['memory']) or 'none'}): resume with those rules"
            )
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)
        self.stage, self.memory = state["stage"], state["memory"]
        self._again = [list(problems) for problems in state["unfinished"]]


def key_of(prompt: str | list) -> str:
    """A key for a prompt, the same in every run."""
    return hashlib.sha256(json.dumps(prompt, sort_keys=True, default=str).encode()).hexdigest()[:16]
