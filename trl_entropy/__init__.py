"""Entropy control for GRPO in TRL: see the policy's entropy and hold it, with one flag."""

from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:  # for type checkers and editors
    from ._seam import SeamError as SeamError
    from .async_grpo import EntropyAsyncGRPOConfig as EntropyAsyncGRPOConfig
    from .async_grpo import EntropyAsyncGRPOTrainer as EntropyAsyncGRPOTrainer
    from .callbacks import EntropyCallback as EntropyCallback
    from .callbacks import EntropyController as EntropyController
    from .callbacks import EntropyWatchdog as EntropyWatchdog
    from .callbacks import Recorder as Recorder
    from .config import EntropyGRPOConfig as EntropyGRPOConfig
    from .control.laws import Law as Law
    from .lab.evaluation.callback import PassAtKCallback as PassAtKCallback
    from .lab.live import LiveView as LiveView
    from .rollouts import RolloutRule as RolloutRule
    from .rules.pool import Pool as Pool
    from .rules.rule import Rule as Rule
    from .rules.rule import knob as knob
    from .rules.tokens import Tokens as Tokens
    from .wrap import EntropyGRPOTrainer as EntropyGRPOTrainer
    from .wrap import with_entropy_control as with_entropy_control

__version__ = "0.1.0"

# The same names, imported on first use: `import trl_entropy` must not load TRL
_HOME = {
    "EntropyAsyncGRPOConfig": "async_grpo",
    "EntropyAsyncGRPOTrainer": "async_grpo",
    "EntropyCallback": "callbacks",
    "EntropyController": "callbacks",
    "EntropyGRPOConfig": "config",
    "EntropyGRPOTrainer": "wrap",
    "EntropyWatchdog": "callbacks",
    "Law": "control.laws",
    "LiveView": "lab.live",
    "PassAtKCallback": "lab.evaluation.callback",
    "Pool": "rules.pool",
    "Recorder": "callbacks",
    "RolloutRule": "rollouts",
    "Rule": "rules.rule",
    "SeamError": "_seam",
    "Tokens": "rules.tokens",
    "knob": "rules.rule",
    "with_entropy_control": "wrap",
}

# Without the names that an older TRL lacks: `from trl_entropy import *` imports all of these
__all__ = sorted(name for name, home in _HOME.items() if home != "async_grpo")


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    if not home.startswith("lab."):
        return getattr(import_module(f".{home}", __name__), name)
    try:
        return getattr(import_module(".checks", __name__).lab(home.removeprefix("lab."), name), name)
    except ValueError as error:
        raise ImportError(str(error)) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
