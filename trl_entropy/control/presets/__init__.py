"""The YAML fragments that `entropy_control` names; the config's own settings override them."""

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ...checks import unknown
from ..controller import without_target


logger = logging.getLogger(__name__)

OFF = "none"  # of entropy_control
SAME_AS_OFF = (False, "off", "false", "null")  # from YAML, and from a command line
FILE = ".yaml"  # the ending of the path of your own fragment
TARGET_FLAGS = ("entropy_target", "entropy_target_ratio")
MAPPINGS = ("token_weights", "advantage_bonuses", "loss_terms", "rollout_rules", "controllers")


def presets() -> dict[str, dict]:
    """The bundled fragments by name."""
    return deepcopy(_read())


@cache
def _read() -> dict[str, dict]:
    found = (file for file in files(__name__).iterdir() if file.name.endswith(FILE))
    return {file.name.removesuffix(FILE): yaml.safe_load(file.read_text()) for file in found}


def preset(name: str | None) -> dict:
    """
    The fragment of a bundled method or of your own `.yaml` file; empty for none.

    Raises `ValueError` for an unknown name, an unreadable file, or an unknown entry in it.
    """
    if isinstance(name, str) and name.endswith(FILE):
        return _of_file(name)
    available = {OFF: {}, **presets()}
    chosen = OFF if name is None else name
    if not isinstance(chosen, str) or chosen not in available:
        raise unknown("entropy_control", chosen, available)
    return available[chosen]


def _of_file(path: str) -> dict:
    try:
        fragment = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"entropy_control={path!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"entropy_control={path!r} is not YAML: {' '.join(str(error).split())}") from error
    fragment = mapping_of(f"entropy_control={path!r}", fragment)
    for key in fragment:
        if key not in (*MAPPINGS, *TARGET_FLAGS):
            raise unknown(f"entry of {path}", key, (*MAPPINGS, *TARGET_FLAGS))
    return fragment | {key: mapping_of(f"{key} in {path}", fragment[key]) for key in MAPPINGS if key in fragment}


def mapping_of(name: str, value: Mapping | str | None) -> dict:
    """A mapping, from a mapping, JSON or nothing. Raises `ValueError` for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            is_name = name in MAPPINGS and name != "controllers" and str(value).replace(".", "").isidentifier()
            why = f'for a rule with its defaults write {{"{value}": {{}}}}' if is_name else error
            raise ValueError(f"{name} must be a YAML mapping or a JSON object, got {value!r} ({why})") from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {value!r}")
    return dict(value)


def merged(base: Mapping, top: Mapping) -> dict:
    """`base` with the entries of `top` over it, merged mapping by mapping."""
    both = dict(base)
    for key, value in top.items():
        deeper = isinstance(both.get(key), Mapping) and isinstance(value, Mapping)
        both[key] = merged(both[key], value) if deeper else value
    return both


def lay_under(args: Any, target_of_trl: float | None) -> None:
    """
    Merge the fragment that `entropy_control` names into a config, under the config's own settings, and settle its
    target.

    Args:
        args (`EntropyFlags`):
            The config; its mappings and target flags are set.
        target_of_trl (`float`, *optional*):
            TRL's default for `entropy_target`; `None` if TRL has no such flag.

    Raises `ValueError` for an unknown name, a flag that is not a mapping, or conflicting targets.
    """
    if args.entropy_control in SAME_AS_OFF:
        args.entropy_control = OFF
    fragment = preset(args.entropy_control)
    for name in MAPPINGS:
        own = deepcopy(mapping_of(name, getattr(args, name)))  # another config may share the same object
        setattr(args, name, merged(fragment.get(name, {}), own))
    if args.entropy_control == OFF:
        _drop_settings_of_presets(args.controllers)
    _settle_target(args, fragment, target_of_trl)


def _drop_settings_of_presets(controllers: dict) -> None:
    of_presets = {name for fragment in presets().values() for name in fragment.get("controllers", {})}
    for name, spec in list(controllers.items()):
        if name in of_presets and isinstance(spec, Mapping) and "law" not in spec:
            del controllers[name]
            logger.warning(
                "controllers.%s changes a bundled method, but entropy_control is none: it does nothing",
                name,
            )


def _settle_target(args: Any, fragment: Mapping, target_of_trl: float | None) -> None:
    """Keep the target flag that is set; if none is set but one is needed, use the fragment's, else TRL's."""
    given = {flag: getattr(args, flag) for flag in TARGET_FLAGS if getattr(args, flag) is not None}
    if len(given) == 2:
        raise ValueError(
            f"entropy_target={args.entropy_target} (nats) and entropy_target_ratio={args.entropy_target_ratio} "
            "(share of the starting entropy) are both set: keep one of them"
        )
    holding = bool(without_target(args.controllers))
    adaptive = bool(getattr(args, "use_adaptive_entropy", False))
    for flag, value in given.items():
        if holding or (adaptive and flag == "entropy_target"):
            continue
        idle = (
            f"{flag}={value} has nothing to act on: set entropy_control to hold or another method with a target, add "
            "controllers without their own target, or drop it"
        )
        if flag != "entropy_target" and args.entropy_control != OFF:
            raise ValueError(idle)
        # TRL accepts its own flag where it does nothing, and a recipe may run with its control turned off
        logger.warning("%s", idle)
    if not given and (holding or adaptive):
        of_fragment = {flag: fragment[flag] for flag in TARGET_FLAGS if flag in fragment}
        for flag, value in (of_fragment or {"entropy_target": target_of_trl}).items():
            setattr(args, flag, value)
    if adaptive and args.entropy_target is None:  # the ratio beside it is off
        args.entropy_target = target_of_trl
