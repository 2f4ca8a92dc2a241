"""Verdicts on answers: plain cases are decided here, the rest by the pool, and each pair once."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from ..checks import check_whole_number
from .plain import LONGEST, bare_letters, is_blank, is_same, plain_verdict
from .pool import Pool, default_workers
from .typed import as_latex
from .units import split_unit, without_name, without_units


REASONS = ("correct", "wrong", "no_answer", "unparsable_answer", "unparsable_gold", "timeout", "error")
# The verdict on a gold as its own answer. Only the same text can match `equal_text`. The same holds for
# `bare_letters`: its letters are not a unit, a word or a function, and would be read as a product
CHECKS = ("correct", "equal_text", "bare_letters", "unparsable_gold", "timeout", "error")
# With several golds the answer must equal one; otherwise the verdict is the first of these that any gold gave
ORDER = ("correct", "timeout", "error", "unparsable_answer", "wrong", "no_answer", "unparsable_gold")
# Verdicts that another try may change: the machine stalled, or a process was killed from outside
BY_CHANCE = ("timeout", "error")

_live = weakref.WeakSet()


class Verifier:
    """
    Decide whether answers equal golds, with a reason.

    Args:
        deadline (`float`, *optional*, defaults to `3.0`):
            Seconds per pair that needs computer algebra.
        workers (`int`, *optional*):
            Number of processes that grade; by default the number of this rank's cores, at most 8.
        cache_size (`int`, *optional*, defaults to `65536`):
            Number of verdicts to keep from step to step; `timeout` and `error` are not kept.
        batch_deadline (`float`, *optional*, defaults to `60.0`):
            Seconds for all pairs of one call; pairs left after that are `timeout`.
    """

    def __init__(
        self,
        deadline: float = 3.0,
        workers: int | None = None,
        cache_size: int = 2**16,
        batch_deadline: float = 60.0,
    ):
        if not deadline > 0:
            raise ValueError(f"grading_deadline must be above 0 seconds, got {deadline}")
        if not batch_deadline > 0:
            raise ValueError(f"grading_batch_deadline must be above 0 seconds, got {batch_deadline}")
        if workers is not None:
            check_whole_number("grading_workers", workers)
        self.deadline, self.workers, self.cache_size = deadline, workers, cache_size
        self.batch_deadline = batch_deadline
        self._reset()
        _live.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._cache: OrderedDict[tuple[str, str], str] = OrderedDict()

    def verdicts(self, golds: Sequence[str | Sequence[str]], answers: Sequence[str | None]) -> list[str]:
        """
        One of [`REASONS`] per answer, given its gold or golds.

        With several golds, an answer must equal one of them.
        """
        choices = [[gold] if isinstance(gold, str) else list(gold) for gold in golds]
        pairs = {
            (gold, answer): self._at_once(gold, answer)
            for wanted, answer in zip(choices, answers, strict=True)
            for gold in wanted
        }
        asked = {pair: texts for pair, texts in pairs.items() if isinstance(texts, tuple)}
        pairs.update(zip(asked, self.ask(list(asked.values())), strict=True))
        return [
            min((pairs[gold, answer] for gold in wanted), key=ORDER.index, default="unparsable_gold")
            for wanted, answer in zip(choices, answers, strict=True)
        ]

    def ask(self, pairs: list[tuple[str, str]]) -> list[str]:
        """Verdicts by computer algebra, each distinct pair once."""
        with self._lock:
            new = [pair for pair in dict.fromkeys(pairs) if pair not in self._cache]
            graded = dict(zip(new, self._grade(new), strict=True)) if new else {}
            verdicts = [graded[pair] if pair in graded else self._cache[pair] for pair in pairs]
            self._cache.update({pair: verdict for pair, verdict in graded.items() if verdict not in BY_CHANCE})
            for pair in pairs:
                if pair in self._cache:
                    self._cache.move_to_end(pair)
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
            return verdicts

    def self_check(self, golds: list[str]) -> list[str]:
        """One of [`CHECKS`] per gold, compared with itself after parsing: equal text does not count."""
        texts = [split_unit(without_name(as_latex(gold)))[0] for gold in golds]
        verdicts = [_check_at_once(text) for text in texts]
        asked = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict is None]
        read = iter(self.ask([(text, text) for text in asked]))
        return [_checked(next(read)) if verdict is None else verdict for verdict in verdicts]

    def close(self) -> None:
        """End the processes; the next verdict starts new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def _grade(self, pairs: list[tuple[str, str]]) -> list[str]:
        if self._pool is None:
            self._pool = Pool(self.workers or default_workers(), self.deadline, self.batch_deadline)
        try:
            return self._pool.grade(pairs)
        except BaseException:  # a late answer must not be taken for the next call's
            self._pool.close()
            self._pool = None
            raise

    @staticmethod
    def _at_once(gold: str, answer: str | None) -> str | tuple[str, str]:
        """The verdict, or the two texts to compare by computer algebra."""
        if is_blank(as_latex(gold)):
            return "correct" if gold.strip() and answer and is_same(gold, answer) else "unparsable_gold"
        if answer is None or not answer.strip():
            return "no_answer"
        if len(answer) > LONGEST:
            return "correct" if answer == gold else "unparsable_answer"
        if is_same(gold, answer):
            return "correct"
        texts = without_units(as_latex(gold), as_latex(answer))
        if texts is None:
            return "wrong"
        return "correct" if is_same(*texts) else plain_verdict(*texts) or texts

    def __reduce__(self):
        return Verifier, (self.deadline, self.workers, self.cache_size, self.batch_deadline)


def _check_at_once(text: str) -> str | None:
    if is_blank(text):
        return "unparsable_gold"
    verdict = bare_letters(text) or plain_verdict(text, text)
    return "equal_text" if verdict == "wrong" else verdict


def _checked(verdict: str) -> str:
    return verdict if verdict in ("correct", *BY_CHANCE) else "equal_text"


def _forget_in_fork() -> None:
    """Reset a fork: no thread in it would release the lock, and it must not use its parent's channel."""
    for verifier in list(_live):
        verifier._reset()


@lru_cache
def shared_verifier(deadline: float, workers: int | None, batch_deadline: float) -> Verifier:
    """One verifier, with its processes and cache, for all rewards with these settings."""
    return Verifier(deadline, workers, batch_deadline=batch_deadline)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
