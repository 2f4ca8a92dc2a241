"""Axolotl's GRPO trainers with entropy control."""

from axolotl.core.trainers.grpo.trainer import AxolotlAsyncGRPOTrainer, AxolotlGRPOTrainer

from ..._seam import Prefetching, WholeRollouts
from ...trainer import EntropyControl
from .args import ASYNC


class EntropyAxolotlGRPOTrainer(EntropyControl, AxolotlGRPOTrainer):
    """Axolotl's GRPO trainer with [`EntropyControl`]."""


class EntropyAxolotlAsyncGRPOTrainer(Prefetching, EntropyControl, WholeRollouts, AxolotlAsyncGRPOTrainer):
    """Axolotl's asynchronous GRPO trainer with [`EntropyControl`]."""

    own_family = ASYNC
