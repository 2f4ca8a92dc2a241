import math

import pytest
import torch

from trl_entropy.measures.groups import outcomes, votes


def test_outcomes_by_hand():
    nan = math.nan
    rewards = torch.tensor(
        [[1.0, 1.0], [0.0, 0.5], [1.0, 0.0], [1.0, nan], [nan, 0.0], [nan, nan], [2.0, 0.51], [-1.0, 0.0]]
    )
    # all correct: 1st, 4th, 7th; all wrong: 2nd (one half is wrong), 5th, 8th; without any reward neither
    assert outcomes(rewards) == {"groups/all_correct": 3 / 8, "groups/all_wrong": 3 / 8}


def test_votes_by_hand():
    # 3 to 1; one answer alone; none; four of one kind each
    answers = ["7", "7", "8", "7", None, "7", None, None, None, None, None, None, "1", "2", "3", "4"]
    expected = (3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4), 0.0, math.log(4))
    assert votes(answers, 4) == pytest.approx(
        {"groups/distinct_answers": (2 + 1 + 0 + 4) / 4, "groups/vote_entropy": sum(expected) / 3}, rel=1e-12
    )


def test_without_answers_there_is_no_vote():
    assert votes([None] * 4, 2) == {"groups/distinct_answers": 0.0}


def test_answers_are_those_of_one_group():
    assert votes(["1", "1", "2", "2"], 2) == {"groups/distinct_answers": 1.0, "groups/vote_entropy": 0.0}
    assert votes(["1", "2", "1", "2"], 2)["groups/distinct_answers"] == 2.0
