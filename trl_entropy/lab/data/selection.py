"""Select a run's problems from a dataset: without duplicates, without benchmark problems, or a subset."""

from collections.abc import Mapping, Sequence

from .decontaminate import contaminated
from .deduplicate import duplicates
from .diversify import subset


SHOWN = 5  # number of removed problems to show per reason


def select(
    texts: Sequence[str],
    threshold: float | None = None,
    benchmarks: Mapping[str, Sequence[str]] | None = None,
    size: int | None = None,
    by: str = "kmeans",
    seed: int = 0,
) -> tuple[list[int], list[str]]:
    """
    Rows of the problems that stay, and lines that say which do not and why.

    Args:
        texts (`Sequence[str]`):
            The problems.
        threshold (`float`, *optional*):
            Similarity from which a problem counts as a duplicate of an earlier one; by default duplicates stay.
        benchmarks (`Mapping[str, Sequence[str]]`, *optional*):
            Problems by benchmark; problems that share words with them are removed.
        size (`int`, *optional*):
            Number of problems in the subset, which is chosen last; by default all.
        by (`str`, *optional*, defaults to `"kmeans"`):
            How to choose the subset: "kmeans" or "random".
        seed (`int`, *optional*, defaults to `0`):
            Seed of the choice.

    Raises `ValueError` for a wrong threshold, way or size, or if no problem is left.
    """
    left_out, lines = set(), []
    if threshold is not None:
        removed, reasons = duplicates(texts, threshold, max_rows=SHOWN)
        left_out.update(removed)
        lines += reasons
    if benchmarks is not None:
        removed, reasons = contaminated(texts, benchmarks, max_rows=SHOWN)
        left_out.update(removed)
        lines += reasons
    rows = [row for row in range(len(texts)) if row not in left_out]
    if not rows:
        raise ValueError("no problem of the dataset is left: all share words with a benchmark")
    if size is not None:
        chosen = subset([texts[row] for row in rows], size, by, seed)
        lines.append(f"{size} of {len(rows)} problems are trained on, chosen by {by}")
        rows = [rows[place] for place in chosen]
    return rows, lines
