"""Rewards by reasoning-gym's own scorers."""

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from .answers import SOURCES, answer_in
from .messages import policy_texts


if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset


# Tasks whose problems depend on the order of Python's sets, or on earlier draws: no seed reproduces them
NOT_REPEATABLE = (
    "acre",
    "isomorphic_strings",
    "knight_swap",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
)


# The exceptions of scorers, in version 0.1.25, for an answer in an unexpected form
UNREADABLE = (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)


class ReasoningGymReward:
    """
    The score of the completion's answer, from 0 to 1, by the task that the problem was drawn from.

    Args:
        answer_from (`Sequence[str]`, *optional*, defaults to `("boxed",)`):
            Where to look for the answer, as for [`MathVerifyReward`]; without an answer the score is 0.

    Raises `ValueError` for an unknown source.
    """

    __name__ = "reasoning_gym_reward"
    reads_rollout = True  # as in math_verify

    def __init__(self, answer_from: Sequence[str] = ("boxed",)):
        answer_from = (answer_from,) if isinstance(answer_from, str) else tuple(answer_from)
        wrong = [source for source in answer_from if source not in SOURCES]
        if wrong or not answer_from:
            raise ValueError(f"answer_from takes one or more of {', '.join(SOURCES)}; got {wrong or 'none'}")
        self.answer_from = answer_from

    def __call__(
        self,
        completions: list,
        reasoning_gym: list[str],
        policy_text: list[str] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs,
    ) -> list[float]:
        """
        A score per completion; 0 for an answer that the task cannot read, and the rate of these is logged.

        Args:
            completions (`list[str]` or `list[list[dict[str, str]]]`):
                Completions in the standard or the conversational format.
            reasoning_gym (`list[str]`):
                The origin of each problem: the column that [`~commands.procedural.draw_problems`] writes.
            policy_text (`list[str]`, *optional*):
                The text to grade instead of the completions: that of the policy's own tokens.
            **kwargs:
                TRL's other arguments to a reward function.
        """
        answers = [answer_in(text, self.answer_from) for text in policy_texts(completions, policy_text)]
        scores = [
            0.0 if answer is None else _score(answer, origin)
            for answer, origin in zip(answers, reasoning_gym, strict=True)
        ]
        if log_extra is not None:
            log_extra("answer", ["" if answer is None else answer for answer in answers])
        if log_metric is not None and scores:
            log_metric(f"rewards/{self.__name__}/unreadable", scores.count(None) / len(scores))
        return [0.0 if score is None else score for score in scores]


def task(name: str, settings: Mapping[str, object]) -> "ProceduralDataset":
    """
    A task of reasoning-gym; it draws its items on demand.

    Raises `ImportError` without the package, and `ValueError` for an unknown task, a wrong setting, or a task whose
    problems no seed reproduces.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ImportError('The package reasoning-gym is not installed: run `pip install "trl-entropy[data]"`.')
    from reasoning_gym.factory import DATASETS, create_dataset

    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"unknown task of reasoning-gym {name!r}.{hint} There are {len(DATASETS)} tasks, such as 'chain_sum'"
        )
    if name in NOT_REPEATABLE:
        raise ValueError(
            f"the task {name!r} of reasoning-gym gives different problems each time, even with the same seed: choose "
            "another task"
        )
    try:
        return create_dataset(name, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"the task {name!r} of reasoning-gym does not accept {dict(settings)}: {error}") from error


@lru_cache(maxsize=64)
def _task(name: str, settings: str) -> "ProceduralDataset":
    return task(name, json.loads(settings))


@lru_cache(maxsize=4096)
def _item(origin: str) -> "tuple[ProceduralDataset, dict]":
    place = json.loads(origin)
    drawn_from = _task(place["task"], json.dumps(place["settings"]))
    return drawn_from, drawn_from[place["index"]]


def _score(answer: str, origin: str) -> float | None:
    drawn_from, item = _item(origin)
    try:
        return float(drawn_from.score_answer(answer, item))
    except UNREADABLE:
        return None


_reward = ReasoningGymReward()


def reasoning_gym_reward(completions: list, reasoning_gym: list[str], **kwargs) -> list[float]:
    r"""The score of the last `\boxed{}`'s content by the problem's task; [`ReasoningGymReward`] with its defaults."""
    return _reward(completions, reasoning_gym, **kwargs)


reasoning_gym_reward.answer_from, reasoning_gym_reward.reads_rollout = _reward.answer_from, True
