"""Handle keys for `accelerate launch` in a recipe, as `trl grpo` does."""

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import NoReturn

from ..checks import unknown


logger = logging.getLogger(__name__)

OF_TRL = "accelerate_config"  # a file, or the name of one of TRL's
OURS = "TRL_ENTROPY_LAUNCHED"  # set in the processes launched here
SCRIPT = "trl_entropy"
# The arguments of accelerate's parser that choose the program and how it ends: not for a recipe
OF_PROGRAM = ("module", "no_python", "quiet", "training_script", "training_script_args")


def launch_arguments(recipe: dict, line: list[str], flags: Iterable[str], verb: str) -> list[str]:
    """
    The rest of a recipe and of a command line, as arguments of `accelerate launch`.

    Args:
        recipe (`dict`), line (`list[str]`):
            The recipe's keys and the command line's arguments that are not flags of the verb; the command line
            overrides the recipe.
        flags (`Iterable[str]`), verb (`str`):
            The verb's flags and its name, for the hint.

    Raises `ValueError` for arguments that accelerate does not know or does not accept.
    """
    if not recipe and not line:
        return []
    defaults = vars(_parser().parse_args([SCRIPT]))
    known = {name: value for name, value in defaults.items() if name not in OF_PROGRAM} | {OF_TRL: None}
    parts = [split for part in line for split in _split(part)]
    named = [part[2:] for part in parts if part.startswith("--")]
    recipe = {name.replace("-", "_"): value for name, value in recipe.items()}
    for name in [*recipe, *named, *([parts[0]] if parts and not named else [])]:
        if name not in known:
            raise unknown("flag", name, {*flags, *known}, f"trl-entropy {verb} --help")
    arguments = []
    for name, value in recipe.items():
        if value is None or name in named:
            continue
        if isinstance(known[name], bool):
            arguments += [f"--{name}"] * (str(value).lower() == "true")
        else:
            arguments += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    arguments = _with_config_file([*arguments, *parts])
    given = _parser().parse_args([*arguments, SCRIPT])
    if [given.training_script, *given.training_script_args] != [SCRIPT]:
        raise ValueError(f"{given.training_script!r} is neither a flag nor the value of one")
    return arguments


def _parser() -> argparse.ArgumentParser:
    """Accelerate's parser, except that it raises `ValueError`."""
    from accelerate.commands.launch import launch_command_parser

    def fail(message: str) -> NoReturn:
        raise ValueError(f"{message} (of accelerate launch)")

    parser = launch_command_parser()
    parser.error = fail
    return parser


def _split(part: str) -> list[str]:
    """Split `--num-processes=2` into `--num_processes` and `2`."""
    if not part.startswith("--"):
        return [part]
    name, equals, value = part.partition("=")
    return [name.replace("-", "_").replace("__", "--", 1), *([value] if equals else [])]


def _with_config_file(arguments: list[str]) -> list[str]:
    """Replace TRL's `--accelerate_config` by accelerate's `--config_file`."""
    if f"--{OF_TRL}" not in arguments:
        return arguments
    if "--config_file" in arguments:
        raise ValueError(f"{OF_TRL} and config_file both name an accelerate config: drop one of them")
    place = arguments.index(f"--{OF_TRL}")
    name = (arguments + [""])[place + 1]
    configs = {file.name.removesuffix(".yaml"): file for file in resources.files("trl.accelerate_configs").iterdir()}
    configs = {known: file for known, file in configs.items() if file.name.endswith(".yaml")}
    if not Path(name).is_file() and name not in configs:
        raise ValueError(f"{OF_TRL} must be a YAML file or one of {', '.join(sorted(configs))}, got {name!r}")
    found = name if Path(name).is_file() else str(configs[name])
    return ["--config_file", found, *arguments[:place], *arguments[place + 2 :]]


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return any(name in os.environ for name in (OURS, "LOCAL_RANK", "ACCELERATE_USE_CPU"))


def launch(verb: str, arguments: list[str], of_launch: Iterable[str]) -> None:
    """Run a verb under `accelerate launch`, with the same arguments. Ends with the exit status of its processes."""
    import torch
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    given = _parser().parse_args([*of_launch, "--quiet", "--module", SCRIPT, verb, *arguments])
    if (given.num_processes or 1) > 1 and not given.multi_gpu and not torch.accelerator.is_available():
        logger.warning(
            "without an accelerator, accelerate starts one process, whatever num_processes is; multi_gpu: true "
            "starts them all"
        )
    print("accelerate launch", *of_launch, "--module", SCRIPT, verb, *arguments, file=sys.stderr)
    os.environ[OURS] = "1"
    try:
        launch_command(given)
    except (KeyboardInterrupt, SignalException):
        sys.exit(130)  # the processes have printed where they stopped
    except ChildFailedError as error:
        sys.exit(error.get_first_failure()[1].exitcode)
    finally:
        os.environ.pop(OURS)
