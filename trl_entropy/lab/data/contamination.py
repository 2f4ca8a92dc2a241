"""Problems that share their words with a benchmark."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from .texts import ngrams, words


class Overlap(NamedTuple):
    """A contaminated row, the benchmark, the number of its problem there, and the words that both have."""

    row: int
    benchmark: str
    problem: int
    ngram: str


def find_contamination(texts: Sequence[str], benchmarks: Mapping[str, Sequence[str]], n: int = 13) -> list[Overlap]:
    """
    The texts that share a run of `n` words with a problem of a benchmark, each with the first one found.

    Words are what white space separates, without case and punctuation. A problem of fewer words than `n` is looked
    for as a whole (ours).

    Args:
        texts (`Sequence[str]`):
            The problems to train on.
        benchmarks (`Mapping[str, Sequence[str]]`):
            The problems to evaluate on, by name.
        n (`int`, *optional*, defaults to `13`):
            Words; GPT-3's number.

    Raises `ValueError` for n below 1.

    Reference: Brown et al., [Language Models are Few-Shot Learners](https://huggingface.co/papers/2005.14165), 2020,
    appendix C.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    places: dict[tuple[str, ...], tuple[str, int]] = {}
    for name, problems in benchmarks.items():
        for number, problem in enumerate(problems):
            for gram in ngrams(words(problem), n):
                places.setdefault(gram, (name, number))
    lengths = sorted({len(gram) for gram in places}, reverse=True)

    @cache  # rows may repeat
    def shared(text: str) -> tuple[str, ...] | None:
        own = words(text)
        grams = (gram for length in lengths if length <= len(own) for gram in ngrams(own, length))
        return next((gram for gram in grams if gram in places), None)

    grams = [shared(text) for text in texts]
    return [Overlap(row, *places[gram], " ".join(gram)) for row, gram in enumerate(grams) if gram is not None]
