"""What the process that `processes.py` forks from has loaded."""

import gc

import toy  # noqa: F401

import trl_entropy.commands.grpo
import trl_entropy.lab.evaluation.callback  # noqa: F401


gc.freeze()
