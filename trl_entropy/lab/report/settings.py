"""Find the settings in which runs differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields

from .statistics import PER_RUN, Arm


# Settings that the config fills in automatically, or that do not change the training
NOT_SHOWN = (
    *PER_RUN,
    "accelerator_config",
    "activation_checkpointing",
    "dataloader_pin_memory",
    "debug",
    "disable_tqdm",
    "generation_batch_size",
    "hub_token",
    "logging_steps",
    "report_to",
    "save_strategy",
    "steps_per_generation",
)
NOT_SET = (None, "", [], {})


def differing(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """
    Head and rows of the table: the settings in which arms differ, or, for a single arm, those that are not the
    default.

    There are no rows if an arm has no saved settings.
    """
    given = [_flat(arm.runs[0].settings) for arm in arms]
    if not all(given):
        return [], []
    head = ["setting", *(arm.name for arm in arms)]
    if len(arms) == 1:
        given.append(_flat(_defaults()))
        head.append("default")
    keys = dict.fromkeys(key for settings in given for key in settings)
    rows = [[key, *(_cell(settings.get(key)) for settings in given)] for key in sorted(keys)]
    return head, [row for row in rows if len(set(row[1:])) > 1]


def _defaults() -> dict:
    from ...config import EntropyGRPOConfig  # loads TRL

    return {
        each.name: each.default_factory() if each.default is MISSING else each.default
        for each in fields(EntropyGRPOConfig)
        if each.default is not MISSING or each.default_factory is not MISSING
    }


def _flat(settings: Mapping, prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, without unset values."""
    flat = {}
    for key, value in settings.items():
        if not prefix and key in NOT_SHOWN:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif value not in NOT_SET:
            flat[f"{prefix}{key}"] = value
    return flat


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str).strip('"')
