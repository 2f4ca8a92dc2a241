import math

import pytest
import torch

from trl_entropy.rollouts import DynamicSampling


NAN = math.nan


def test_groups_with_equal_rewards_are_not_kept():
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.3, 0.3, 0.30001]])
    assert DynamicSampling().keep(rewards).tolist() == [False, False, True, True]


def test_completion_without_a_reward_does_not_count():
    rewards = torch.tensor([[1.0, NAN, 1.0], [NAN, 0.0, 1.0], [NAN, NAN, 1.0], [NAN, NAN, NAN]])
    assert DynamicSampling().keep(rewards).tolist() == [False, True, False, False]


def test_correct_answers_that_differ_by_a_penalty_are_equal_by_correctness():
    rewards = torch.tensor([[0.9, 1.0], [0.4, 1.0], [-0.5, 0.0], [NAN, 0.8], [0.2, NAN]])
    assert DynamicSampling(by="correct").keep(rewards).tolist() == [False, True, False, False, False]
    assert DynamicSampling().keep(rewards).tolist() == [True, True, True, False, False]


def test_rewards_are_those_of_the_function_that_is_named():
    assert DynamicSampling(by="math_verify_reward").reward_func == "math_verify_reward"
    assert DynamicSampling().reward_func is DynamicSampling(by="correct").reward_func is None
    rewards = torch.tensor([[0.9, 1.0], [1.0, 1.0]])
    assert DynamicSampling(by="math_verify_reward").keep(rewards).tolist() == [True, False]


@pytest.mark.parametrize("value", [None, "", 1])
def test_what_is_not_a_name_is_refused(value):
    with pytest.raises(ValueError, match="by must be 'reward', 'correct' or the name of a reward function, got"):
        DynamicSampling(by=value)


@pytest.mark.parametrize("rounds", [0, 4])
def test_number_of_rounds(rounds):
    assert DynamicSampling(max_rounds=rounds).rounds == rounds


@pytest.mark.parametrize("value", [-1, 1.0, True, None])
def test_another_number_of_rounds_is_refused(value):
    with pytest.raises(ValueError, match="max_rounds must be a whole number >= 0, got"):
        DynamicSampling(max_rounds=value)


def test_it_keeps_groups():
    assert DynamicSampling.acts == {"groups"}
    assert DynamicSampling().columns == ()
