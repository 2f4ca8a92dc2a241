"""Entropy control for GRPO: see and hold the policy's entropy, in TRL, by a flag."""

from importlib import import_module


__version__ = "0.1.0"

# Public names, imported on first use: `import trl_entropy` must not load TRL
_HOME = {
    "EntropyCallback": "callbacks",
    "EntropyController": "callbacks",
    "EntropyGRPOConfig": "config",
    "EntropyGRPOTrainer": "trainer",
    "EntropyWatchdog": "callbacks",
    "LiveView": "lab.live",
    "PassAtKCallback": "lab.evaluation.callback",
    "Recorder": "callbacks",
    "Rule": "rules.rule",
    "SeamError": "_seam",
    "Tokens": "rules.tokens",
    "with_entropy_control": "wrap",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
