"""Handle keys for `accelerate launch` in a recipe, as `trl grpo` does."""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NoReturn

from ..checks import unknown


logger = logging.getLogger(__name__)

CONFIG_OF_TRL = "accelerate_config"  # a file, or the name of one of TRL's
LAUNCHED_HERE = "TRL_ENTROPY_LAUNCHED"  # set in the processes launched here
SCRIPT = "trl_entropy"
# The arguments of accelerate's parser that choose the program and how it ends: not for a recipe
OF_PROGRAM = ("module", "no_python", "quiet", "training_script", "training_script_args")
OF_RECIPE, OF_LINE = ("base", "env"), ("config",)  # keys that are not flags of the parser
# From a terminal, its end, and a scheduler or a container; not every system has all
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM") if hasattr(signal, name)]


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
    known = {name: value for name, value in defaults.items() if name not in OF_PROGRAM} | {CONFIG_OF_TRL: None}
    parts = [split for part in line for split in _split(part)]
    named = [part[2:] for part in parts if part.startswith("--")]
    recipe = {name.replace("-", "_"): value for name, value in recipe.items()}
    on_line = [*named, *([parts[0]] if parts and not named else [])]
    for name, own in [*((name, OF_RECIPE) for name in recipe), *((name, OF_LINE) for name in on_line)]:
        if name not in known:
            raise unknown("flag", name, {*flags, *known, *own}, f"trl-entropy {verb} --help")
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
    if f"--{CONFIG_OF_TRL}" not in arguments:
        return arguments
    if "--config_file" in arguments:
        raise ValueError(f"{CONFIG_OF_TRL} and config_file both name an accelerate config: drop one of them")
    place = arguments.index(f"--{CONFIG_OF_TRL}")
    name = (arguments + [""])[place + 1]
    configs = {file.name.removesuffix(".yaml"): file for file in resources.files("trl.accelerate_configs").iterdir()}
    configs = {known: file for known, file in configs.items() if file.name.endswith(".yaml")}
    if not Path(name).is_file() and name not in configs:
        raise ValueError(f"{CONFIG_OF_TRL} must be a YAML file or one of {', '.join(sorted(configs))}, got {name!r}")
    found = name if Path(name).is_file() else str(configs[name])
    return ["--config_file", found, *arguments[:place], *arguments[place + 2 :]]


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return any(name in os.environ for name in (LAUNCHED_HERE, "LOCAL_RANK", "ACCELERATE_USE_CPU"))


def launch(verb: str, arguments: list[str], of_launch: Iterable[str]) -> NoReturn:
    """Run a verb under `accelerate launch`, with the same arguments. Ends with the exit status of its processes."""
    import torch

    command = [*of_launch, "--module", SCRIPT, verb, *arguments]
    given = _parser().parse_args(command)
    if (given.num_processes or 1) > 1 and not given.multi_gpu and not torch.accelerator.is_available():
        logger.warning(
            "without an accelerator, accelerate starts one process, whatever num_processes is; multi_gpu: true "
            "starts them all"
        )
    print("accelerate launch", *command, file=sys.stderr)
    sys.exit(status_of([sys.executable, "-m", __name__, *command], {LAUNCHED_HERE: "1"}))


def status_of(command: list[str], environment: Mapping[str, str]) -> int:
    """
    Run a command and return its exit status, or 128 plus the number of the first signal that this process gets.

    Signals are handed on to the command and to what it has started. It has a session of its own: else Ctrl-C in a
    terminal would reach it twice, and the second would cut off what it says after the first.

    Args:
        command (`list[str]`):
            A program and its arguments.
        environment (`Mapping[str, str]`):
            What it has in its environment besides that of this process.
    """
    early: list[int] = []
    signals: list[int] = []
    before = _on_signals(lambda number, _: early.append(number))
    process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)

    def hand_on(number: int, _) -> None:
        signals.append(number)
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, number)

    _on_signals(hand_on)
    for number in early:
        hand_on(number, None)
    status = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    return 128 + signals[0] if signals else _as_shell(status)


def _as_shell(status: int) -> int:
    """The exit status of a process as a shell gives it; Python gives minus the number of a signal that ended it."""
    return status if status >= 0 else 128 - status


def _on_signals(handler: Callable) -> dict[int, Callable]:
    """Handle what ends a run, except what is ignored, as SIGHUP under nohup; returns the handlers before."""
    handled = {number: signal.getsignal(number) for number in ENDING}
    handled = {number: before for number, before in handled.items() if before is not signal.SIG_IGN}
    for number in handled:
        signal.signal(number, handler)
    return handled


def _main(arguments: list[str]) -> NoReturn:
    """`accelerate launch`, which ends when the processes that it has started have ended."""
    _on_signals(lambda number, _: sys.exit(128 + number))  # nothing is started yet
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    given = _parser().parse_args(arguments)
    _on_signals(lambda *_: None)  # those that it starts get them too
    try:
        launch_command(given)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        sys.exit(_as_shell(error.get_first_failure()[1].exitcode))
    except subprocess.CalledProcessError as error:
        sys.exit(_as_shell(error.returncode))
    except ValueError as error:  # settings that do not go together
        print(f"accelerate launch: error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    _main(sys.argv[1:])
