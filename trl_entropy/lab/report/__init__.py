"""Write a page on what happened to the entropy of runs, and why."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...commands.cli import HELP, parse, refuse
from ...written import add_overwrite, check_output, written_together
from .figures import FIGURES
from .page import described, page
from .runs import METRICS, SCORES, find_runs, state_file
from .statistics import Arm, arms
from .summary import table
from .svg import to_svg, write_png


def main(arguments: list[str]) -> None:
    """`trl-entropy report`."""
    parser = argparse.ArgumentParser(prog="trl-entropy report", description=HELP["report"])
    parser.add_argument("runs", nargs="+", help="folders of runs, or folders that contain such folders")
    parser.add_argument(
        "--output", default="out/report.html", help="the page; its figures are written beside it as PNG"
    )
    add_overwrite(parser)
    try:
        given = parse(parser, arguments)
        page = write(read(given.runs), given.output, given.overwrite)
    except (OSError, ValueError) as error:
        refuse("report", error)
    print(f"report: {page}")


def read(paths: Sequence[str | Path]) -> list[Arm]:
    """
    Read the runs in folders, grouped into arms.

    Raises `ValueError` if there are no runs, if none has logged a step, or if a file cannot be read.
    """
    found = find_runs(paths)
    logged = [run for run in found if run.last_step]
    if not logged:
        raise ValueError(f"no step is logged yet in {', '.join(str(run.path) for run in found)}")
    for run in found:
        if not run.last_step:
            print(f"left out, no step is logged yet: {run.name}")
    return arms(logged)


def write(groups: Sequence[Arm], output: str | Path, overwrite: bool = False) -> Path:
    """
    Print a table of arms and write a page about them.

    Args:
        groups (`Sequence[Arm]`):
            The runs, by arms.
        output (`str` or `Path`):
            The HTML file. A picture of each figure is written beside it, `report_entropy.png`.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether they may replace existing files.

    Returns the path of the page. Raises `ValueError`, before anything is drawn, if one of the files may not be
    written, and `OSError` if writing fails.
    """
    path = Path(os.path.realpath(output))
    pictures = {name: path.with_name(f"{path.stem}_{name}.png") for name in FIGURES}
    read_from = [file for arm in groups for run in arm.runs for file in _files_of(run.path)]
    for file in (path, *pictures.values()):
        check_output(output if file == path else file, overwrite, read_from)
    figures = {}
    with written_together(path.parent, overwrite) as scratch:
        for name, entry in FIGURES.items():
            figure = entry.plot(groups)
            if figure is not None:
                picture = pictures[name].name
                write_png(figure, scratch / picture)
                figures[name] = to_svg(figure, name, described(name, groups)), picture
        (scratch / path.name).write_text(page(groups, figures), encoding="utf-8")
    Console().print(table(groups))
    return Path(output)


def _files_of(run: Path) -> list[Path]:
    """The files that are read from a run."""
    state = state_file(run)
    return [run / METRICS, run.parent / SCORES, *([] if state is None else [state])]


__all__ = ["read", "write"]
