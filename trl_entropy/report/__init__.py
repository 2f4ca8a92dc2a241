"""Floor 5: what became of the entropy of runs and why, as one page."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .figures import FIGURES
from .folders import find_runs
from .page import described, page
from .statistics import Arm, arms
from .summary import table
from .svg import to_svg, write_png


def read(paths: Sequence[str | Path]) -> list[Arm]:
    """
    The runs in folders, by arms.

    Raises `ValueError` if there are none, if none has logged a step, or if a file of one cannot be read.
    """
    found = find_runs(paths)
    logged = [run for run in found if run.last_step]
    if not logged:
        raise ValueError(f"no step is logged yet in {', '.join(str(run.path) for run in found)}")
    for run in found:
        if not run.last_step:
            print(f"left out, no step is logged yet: {run.name}")
    return arms(logged)


def write(groups: Sequence[Arm], output: str | Path) -> Path:
    """
    Print a table of arms and write a page about them.

    Args:
        groups (`Sequence[Arm]`):
            The runs, by arms.
        output (`str` or `Path`):
            The HTML file. A picture of each figure stands beside it, `report_entropy.png`.

    Returns the path of the page. Raises `OSError` if it cannot be written.
    """
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name, drawing in FIGURES.items():
        figure = drawing.draw(groups)
        if figure is not None:
            picture = path.with_name(f"{path.stem}_{name}.png")
            write_png(figure, picture)
            figures[name] = to_svg(figure, name, described(name, groups)), picture.name
    path.write_text(page(groups, figures), encoding="utf-8")
    Console().print(table(groups))
    return path


__all__ = ["read", "write"]
