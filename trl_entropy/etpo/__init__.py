"""ETPO: a policy and a critic over the vocabulary, with a soft Bellman target for every token."""

from .arithmetic import Arithmetic
from .config import EtpoConfig
from .environments import Environment, Episodes, as_messages, as_tool, environment_score
from .trainer import EtpoTrainer


# By the name that the flag `environment` has for it
ENVIRONMENTS = {"arithmetic": Arithmetic}

__all__ = [
    "ENVIRONMENTS",
    "Arithmetic",
    "Environment",
    "Episodes",
    "EtpoConfig",
    "EtpoTrainer",
    "as_messages",
    "as_tool",
    "environment_score",
]
