"""Verifiable rewards, with TRL's reward signature."""

from importlib import import_module

from .format import boxed_format_reward
from .math_verify import LastNumberReward, MathVerifyReward, answers_of, last_number_reward, math_verify_reward
from .reasoning_gym import ReasoningGymReward, reasoning_gym_reward
from .relative_length import RelativeLengthReward, relative_length_reward
from .verifier import REASONS, Verifier


REWARDS = {
    "boxed_format_reward": boxed_format_reward,
    "last_number_reward": last_number_reward,
    "math_verify_reward": math_verify_reward,
    "reasoning_gym_reward": reasoning_gym_reward,
    "relative_length_reward": relative_length_reward,
}

# TRL's own rewards, so that all can be imported from here; loaded on first use, since this floor does not load TRL
TRL_REWARDS = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")
TRL_REWARD_FACTORIES = ("get_cosine_scaled_reward", "get_repetition_penalty_reward", "get_soft_overlong_punishment")

__all__ = [
    "REASONS",
    "REWARDS",
    "LastNumberReward",
    "MathVerifyReward",
    "ReasoningGymReward",
    "RelativeLengthReward",
    "Verifier",
    "answers_of",
    *REWARDS,
]


def __getattr__(name: str):
    if name not in TRL_REWARDS + TRL_REWARD_FACTORIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("trl.rewards"), name)
