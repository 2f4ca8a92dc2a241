"""Split problems into words, to compare them with each other."""

import re
from collections.abc import Sequence


# Words, numbers and signs of formulas, without the punctuation of sentences
UNIT = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*|[^\w\s.,;?\"“”$]")


def units(text: str) -> list[str]:
    r"""
    The words, numbers and signs of a text, without case, white space, dollars and the punctuation of sentences.

    Signs that change a formula stay: `$x+1 = 2$.` has five units and differs from `$x-1 = 2$`.
    """
    return UNIT.findall(text.replace("’", "'").casefold())


def words(text: str) -> list[str]:
    """The parts of a text between white space, lowercased, with only their letters and digits."""
    bare = (re.sub(r"[\W_]+", "", word) for word in text.casefold().split())
    return [word for word in bare if word]


def ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` consecutive items; a shorter sequence is one run, an empty one has none."""
    if len(sequence) <= n:
        return [tuple(sequence)] if sequence else []
    return list(zip(*(sequence[start:] for start in range(n)), strict=False))
