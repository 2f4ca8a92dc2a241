"""ETPO: a policy and a critic over the vocabulary, with a soft Bellman target for every token."""

from .arithmetic import Arithmetic
from .config import EtpoConfig
from .data_science import DataScience
from .environments import Environment, Episodes, as_messages, as_tool, environment_score
from .trainer import EtpoTrainer


# Environments by the name in the flag `environment`
ENVIRONMENTS = {"arithmetic": Arithmetic, "data_science": DataScience}

__all__ = [
    "ENVIRONMENTS",
    "Arithmetic",
    "DataScience",
    "Environment",
    "Episodes",
    "EtpoConfig",
    "EtpoTrainer",
    "as_messages",
    "as_tool",
    "environment_score",
]
