"""
The seam into TRL, and the only folder that names a private attribute of TRL or transformers.

`GRPOTrainer._compute_loss` runs the policy first and reads `inputs["advantages"]` after it. The seam lends it a batch
whose advantages are decided at the moment they are read, from the log-probs and entropies of that very forward.
`docs/architecture.md` lists what it relies on.
"""

from .checkpoints import last_checkpoint
from .error import SeamError
from .head import has_tiles, patched_head
from .hooks import Hooks
from .means import LOSS_TYPES
from .seam import Seam
from .state import (
    clipped_bounds,
    log_means,
    logged_signal,
    lower_learning_rate,
    rollout_ends,
    set_entropy_coef,
    set_logged_entropy,
    set_temperature,
)
from .stepwise import StepwiseGRPOTrainer, sampled_rows, sampled_turns
from .vocabulary import check_plain_head


__all__ = [
    "LOSS_TYPES",
    "Hooks",
    "Seam",
    "SeamError",
    "StepwiseGRPOTrainer",
    "check_plain_head",
    "clipped_bounds",
    "has_tiles",
    "last_checkpoint",
    "log_means",
    "logged_signal",
    "lower_learning_rate",
    "patched_head",
    "rollout_ends",
    "sampled_rows",
    "sampled_turns",
    "set_entropy_coef",
    "set_logged_entropy",
    "set_temperature",
]
