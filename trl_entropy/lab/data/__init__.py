"""Prepare datasets for training: remove duplicates and benchmark problems, choose a subset, add semantic entropy."""

import argparse
import logging

from ...commands.cli import HELP, refuse
from . import decontaminate, deduplicate, diversify, semantic_entropy


VERBS = {
    "deduplicate": deduplicate,
    "decontaminate": decontaminate,
    "diversify": diversify,
    "semantic-entropy": semantic_entropy,
}


def main(arguments: list[str]) -> None:
    """`trl-entropy data`."""
    parser = argparse.ArgumentParser(
        prog="trl-entropy data", description=HELP["data"], formatter_class=argparse.RawTextHelpFormatter
    )
    steps = "\n".join(f"{name:18} {step.run.__doc__}" for name, step in VERBS.items())
    parser.add_argument("verb", choices=VERBS, metavar="verb", help=steps)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="flags; see `trl-entropy data VERB --help`")
    given = parser.parse_args(arguments[:1] or ["--help"])
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        VERBS[given.verb].run(arguments[1:])
    except (ImportError, OSError, ValueError) as error:
        refuse(f"data {given.verb}", error)
