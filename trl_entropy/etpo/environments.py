"""Environments with several steps, and their episodes in TRL: through a `rollout_func` or as a tool."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch

from .._seam import sampled_actions, sampled_rows


ORIGINAL = "original_prompt"  # the column that keeps a row's prompt after it has become a message


class Environment(Protocol):
    """
    The environment of an episode. One object has one episode at a time.

    An environment with slow steps may also have a static method `step_together(environments, texts)`, which takes one
    step in each environment and returns a list of `step`'s results.
    """

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin an episode on a row of the dataset; returns the text that the policy continues."""

    def step(self, text: str) -> tuple[str, float, bool]:
        """Take the policy's text; returns the answer to it (not empty), the reward, and whether the episode ends."""


def step_together(environments: Sequence[Environment], texts: Sequence[str]) -> list[tuple[str, float, bool]]:
    """Take one step in each of these environments."""
    if hasattr(environments[0], "step_together"):
        return environments[0].step_together(environments, texts)
    return [environment.step(text) for environment, text in zip(environments, texts, strict=True)]


class Episodes:
    """
    A `rollout_func` for TRL: every row is an episode in its own environment.

    The completion contains all actions and, between them, the environment's text; `env_mask` tells them apart. The
    context of an action is everything before it.

    Args:
        environment (`Callable[[], Environment]`):
            Makes an environment; `functools.partial` sets its parameters.

    Raises `ValueError` if the environment writes no token between two actions.
    """

    def __init__(self, environment: Callable[[], Environment]):
        self.environment = environment
        self._pool: list[Environment] = []

    def __call__(self, prompts: list, trainer: Any) -> dict[str, list]:
        rows, tokenizer = sampled_rows(trainer), trainer.processing_class
        self._pool += [self.environment() for _ in range(len(rows) - len(self._pool))]
        # With special tokens at the start of a text, as in TRL
        contexts = [tokenizer(one.reset(row))["input_ids"] for one, row in zip(self._pool, rows, strict=False)]
        episodes = [_Episode(context) for context in contexts]
        live = list(range(len(rows)))
        while self._any_lives(trainer, live):
            # A rank whose episodes have all ended still samples with the others: vLLM and sharded models need this
            turns = live or [0]
            sampled = sampled_actions(trainer, [episodes[place].context + episodes[place].ids for place in turns])
            if not live:
                continue
            texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in sampled[0]]
            steps = step_together([self._pool[place] for place in live], texts)
            for place, step, *turn in zip(live, steps, *sampled, strict=True):
                episodes[place].add(*turn, *step, tokenizer)
            live = [place for place in live if not episodes[place].done]
        names = {"completion_ids": "ids", "env_mask": "mask", "step_rewards": "rewards", "attempts": "attempts"}
        return {
            "prompt_ids": contexts,
            "logprobs": [episode.logps for episode in episodes] if trainer.use_vllm else None,
            **{name: [getattr(episode, key) for episode in episodes] for name, key in names.items()},
        }

    @staticmethod
    def _any_lives(trainer: Any, live: list[int]) -> bool:
        count = torch.tensor(len(live), device=trainer.accelerator.device)
        return trainer.accelerator.reduce(count, reduction="sum").item() > 0


class _Episode:
    def __init__(self, context: list[int]):
        self.context, self.ids, self.mask, self.rewards, self.logps = context, [], [], [], []
        self.attempts, self.done = 0, False

    def add(self, ids: list[int], logps: list[float] | None, told: str, reward: float, done: bool, tokenizer) -> None:
        answer = [] if done else tokenizer(told, add_special_tokens=False)["input_ids"]
        if not (answer or done):
            raise ValueError(
                f"the environment answered {told!r} between two actions, which has no token: return a longer text"
            )
        self.ids += ids + answer
        self.mask += [1] * len(ids) + [0] * len(answer)
        self.rewards += [0.0] * (len(ids) - 1) + [reward] + [0.0] * len(answer)
        self.logps += (logps or [0.0] * len(ids)) + [0.0] * len(answer)
        self.attempts, self.done = self.attempts + 1, done


def environment_score(
    step_rewards: list[list[float]], attempts: list[int], log_metric: Callable | None = None, **kwargs
) -> list[float]:
    """The sum of rewards per episode of [`Episodes`]; logs the mean number of `env/attempts`."""
    if log_metric is not None:
        log_metric("env/attempts", sum(attempts) / len(attempts))
    return [sum(rewards) for rewards in step_rewards]


def as_tool(environment: Callable[[], Environment]) -> Callable[[], Any]:
    """
    An `environment_factory` for TRL: the policy acts by calling the tool `submit`.

    TRL limits an episode by `max_tool_calling_iterations`; set it to the environment's number of attempts.

    Args:
        environment (`Callable[[], Environment]`):
            Makes an environment.
    """
    return partial(ToolEnvironment, environment)


def as_messages(row: dict) -> dict:
    """A row for [`as_tool`]: its prompt is a message; TRL appends to it what `reset` returns for the original row."""
    return {"prompt": [{"role": "user", "content": ""}], ORIGINAL: row["prompt"]}


class ToolEnvironment:
    """An environment in TRL's form; [`as_tool`] makes it."""

    def __init__(self, make: Callable[[], Environment]):
        self._environment = make()
        self._begin()

    def _begin(self) -> None:
        self.rewards: list[float] = []
        self._done = False

    def reset(self, **row) -> str:
        self._begin()
        return self._environment.reset({**row, "prompt": row.get(ORIGINAL, row["prompt"])})

    def submit(self, text: str) -> str:
        """
        Submit an answer, and read what is said about it.

        Args:
            text: The answer.
        """
        if self._done:
            return "There is no attempt left."
        told, reward, self._done = self._environment.step(text)
        self.rewards.append(reward)
        return told or "Done."

    def get_reward(self) -> float:
        return float(sum(self.rewards))


def rewards_of_calls(mask: list[int], messages: list[dict], rewards: list[float]) -> list[float]:
    """
    The rewards of [`as_tool`]'s calls, at the last token of the turn that made the call; 0 elsewhere.

    Args:
        mask (`list[int]`):
            1 at the completion's tokens that the policy wrote.
        messages (`list[dict]`):
            The completion; a turn is an assistant message.
        rewards (`list[float]`):
            The rewards of the calls that reached the environment, in order.
    """
    ends = [place for place, (own, after) in enumerate(zip(mask, [*mask[1:], 0], strict=True)) if own and not after]
    turns = [message for message in messages if message["role"] == "assistant"]
    found, left = [0.0] * len(mask), list(rewards)
    for end, turn in zip(ends, turns, strict=False):
        calls = [call["function"] for call in turn.get("tool_calls") or []]
        made = sum(call["name"] == "submit" and {*call["arguments"]} == {"text"} for call in calls)
        found[end], left = sum(left[:made]), left[made:]
    return found
