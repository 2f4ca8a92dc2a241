"""What a recipe of `trl grpo` says to `accelerate launch`, in the same file as its flags."""

import os
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..checks import unknown


OF_TRL = "accelerate_config"  # a file, or the name of one that TRL has
OURS = "TRL_ENTROPY_LAUNCHED"  # set in the processes that were launched here


def launch_arguments(recipe: dict, line: list[str], flags: Iterable[str], verb: str) -> list[str]:
    """
    What is left of a recipe and of a command line, as arguments of `accelerate launch`.

    Args:
        recipe (`dict`), line (`list[str]`):
            The keys of the recipe and the arguments of the command line that are not flags of the verb.
        flags (`Iterable[str]`), verb (`str`):
            The verb and its flags, for the hint.

    Raises `ValueError` for what accelerate does not know either.
    """
    if not recipe and not line:
        return []
    from accelerate.commands.launch import launch_command_parser

    known = vars(launch_command_parser().parse_args(["script"])) | {OF_TRL: None}
    names = [*recipe, *(part[2:].partition("=")[0].replace("-", "_") for part in line if part.startswith("--"))]
    for name in [*names, *([line[0]] if line and not names else [])]:
        if name not in known:
            raise unknown("flag", name, {*flags, *known}, f"trl-entropy {verb} --help")
    arguments = []
    for name, value in recipe.items():
        is_switch = isinstance(known[name], bool)
        arguments += [f"--{name}"] * bool(value) if is_switch else [f"--{name}", str(value)]
    return _with_config_file([*arguments, *line])


def _with_config_file(arguments: list[str]) -> list[str]:
    """Where TRL's `--accelerate_config` is given, accelerate's `--config_file` in its place."""
    if f"--{OF_TRL}" not in arguments:
        return arguments
    place = arguments.index(f"--{OF_TRL}")
    name = (arguments + [""])[place + 1]
    file = resources.files("trl.accelerate_configs").joinpath(f"{name}.yaml")
    if not Path(name).is_file() and not file.is_file():
        there = sorted(found.name.removesuffix(".yaml") for found in file.parent.iterdir() if found.suffix == ".yaml")
        raise ValueError(f"{OF_TRL} must be a YAML file or one of {', '.join(there)}, got {name!r}")
    found = name if Path(name).is_file() else str(file)
    return ["--config_file", found, *arguments[:place], *arguments[place + 2 :]]


def is_launched() -> bool:
    """Whether a launcher has started this process."""
    return any(name in os.environ for name in (OURS, "LOCAL_RANK", "ACCELERATE_USE_CPU"))


def launch(verb: str, arguments: list[str], of_launch: list[str]) -> None:
    """Run a verb under `accelerate launch`, with the same arguments."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    os.environ[OURS] = "1"
    whole = [*of_launch, "--quiet", "--module", "trl_entropy", verb, *arguments]
    print("accelerate launch", *whole, file=sys.stderr)
    try:
        launch_command(launch_command_parser().parse_args(whole))
    except KeyboardInterrupt:
        sys.exit(130)  # the processes have said where they are
