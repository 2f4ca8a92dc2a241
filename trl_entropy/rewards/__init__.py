"""Verifiable rewards, with TRL's reward signature."""

from .math_verify import last_number_reward, math_verify_reward


REWARDS = {"last_number_reward": last_number_reward, "math_verify_reward": math_verify_reward}

__all__ = ["REWARDS", "last_number_reward", "math_verify_reward"]
