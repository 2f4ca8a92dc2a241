"""Prepare datasets for training: remove duplicates and benchmark problems, choose a subset, add semantic entropy."""

import logging

from ...commands.cli import HELP, chosen, refuse
from . import decontaminate, deduplicate, diversify, semantic_entropy


VERBS = {
    "deduplicate": deduplicate,
    "decontaminate": decontaminate,
    "diversify": diversify,
    "semantic-entropy": semantic_entropy,
}


def main(arguments: list[str]) -> None:
    """`trl-entropy data`."""
    lines = {verb: module.run.__doc__ for verb, module in VERBS.items()}
    verb = chosen("trl-entropy data", HELP["data"], lines, arguments)
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        VERBS[verb].run(arguments[1:])
    except (ImportError, OSError, ValueError) as error:
        refuse(f"data {verb}", error)
