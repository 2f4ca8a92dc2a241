"""The words of a problem, for comparing problems with each other."""

import re
from collections.abc import Sequence


# Words, numbers and signs of formulas; what only ends or joins sentences is left out
UNIT = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*|[^\w\s.,;?\"“”$]")


def units(text: str) -> list[str]:
    r"""
    Words, numbers and signs of a text, without case, white space, dollars and the punctuation of sentences.

    Signs that change a formula stay: `$x+1 = 2$.` has five units and differs from `$x-1 = 2$`.
    """
    return UNIT.findall(text.replace("’", "'").casefold())


def words(text: str) -> list[str]:
    """What white space separates in a text, without case and without anything but letters and digits."""
    bare = (re.sub(r"[\W_]+", "", word) for word in text.casefold().split())
    return [word for word in bare if word]


def ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` of a sequence; a shorter sequence is one run itself, an empty one has none."""
    if len(sequence) <= n:
        return [tuple(sequence)] if sequence else []
    return list(zip(*(sequence[start:] for start in range(n)), strict=False))
