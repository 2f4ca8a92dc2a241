"""Measures of a rollout's groups: how many are all right or all wrong, and how much their answers differ."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor

from ..rules.tokens import is_correct, is_incorrect


def outcomes(rewards: Tensor) -> dict[str, float]:
    """
    The shares of groups in which all completions are correct, and in which none is.

    A completion is correct if its reward is above 0.5. Completions without a reward do not count, and a group without
    any reward is in neither share.

    Args:
        rewards (`torch.Tensor`):
            `(groups, G)`, NaN where there was none.
    """
    right, wrong = is_correct(rewards).any(-1), is_incorrect(rewards).any(-1)
    shares = torch.stack([right & ~wrong, wrong & ~right]).float().mean(-1).tolist()
    return dict(zip(("groups/all_correct", "groups/all_wrong"), shares, strict=True))


def votes(answers: Sequence[str | None], size: int) -> dict[str, float]:
    r"""
    The number of distinct answers in a group and the entropy \\( -\sum_a p_a \log p_a \\) of its vote in nats; means
    over groups.

    \\( p_a \\) is the share of answer \\( a \\) among the group's completions that have an answer. A group without
    answers is left out. Answers are the same if their texts are the same.

    Args:
        answers (`Sequence[str]`):
            One per completion, group by group; `None` where there is no answer.
        size (`int`):
            Number of completions per group.
    """
    groups = [Counter(group) for group in _groups(answers, size)]
    means = {"groups/distinct_answers": fmean(map(len, groups))}
    if entropies := [_entropy(group) for group in groups if group]:
        means["groups/vote_entropy"] = fmean(entropies)
    return means


def _groups(answers: Sequence[str | None], size: int) -> Iterator[list[str]]:
    for start in range(0, len(answers), size):
        yield [answer for answer in answers[start : start + size] if answer is not None]


def _entropy(votes: Counter) -> float:
    total = votes.total()
    return sum(number / total * math.log(total / number) for number in votes.values())
