"""
The seam into TRL: the only folder that names private attributes of TRL or transformers.

`GRPOTrainer._compute_loss` first runs the policy and then reads `inputs["advantages"]`. The seam passes it a batch
whose advantages are computed when they are read, from the log-probs and entropies of that same forward pass.
`docs/architecture.md` lists what the seam relies on.
"""

from .checkpoints import last_checkpoint
from .error import SeamError
from .head import has_tiles, patched_head
from .hooks import Hooks
from .means import LOSS_TYPES
from .prefetching import Prefetching, WholeRollouts
from .seam import Seam
from .sharding import split_as, split_parameters, whole
from .state import (
    clipped_bounds,
    gradient_sample,
    log_means,
    logged_signal,
    lower_learning_rate,
    rollout_ends,
    set_entropy_coef,
    set_logged_entropy,
    set_temperature,
)
from .stepwise import StepwiseGRPOTrainer, sampled_actions, sampled_rows
from .vocabulary import HiddenStates, check_plain_head, unwrapped


__all__ = [
    "LOSS_TYPES",
    "HiddenStates",
    "Hooks",
    "Prefetching",
    "Seam",
    "SeamError",
    "StepwiseGRPOTrainer",
    "WholeRollouts",
    "check_plain_head",
    "clipped_bounds",
    "gradient_sample",
    "has_tiles",
    "last_checkpoint",
    "log_means",
    "logged_signal",
    "lower_learning_rate",
    "patched_head",
    "rollout_ends",
    "sampled_actions",
    "sampled_rows",
    "set_entropy_coef",
    "set_logged_entropy",
    "set_temperature",
    "split_as",
    "split_parameters",
    "unwrapped",
    "whole",
]
