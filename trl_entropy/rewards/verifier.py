"""Verdicts on answers: what is plain is decided here, the rest by the pool, and each pair once."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from .plain import LONGEST, is_blank, is_same, plain_verdict
from .pool import Pool, default_workers


REASONS = ("correct", "wrong", "no_answer", "unparsable_answer", "unparsable_gold", "timeout", "error")
# Of several golds the answer needs to equal one; else the first of these that any of them gave
ORDER = ("correct", "timeout", "error", "unparsable_answer", "wrong", "no_answer", "unparsable_gold")

_live = weakref.WeakSet()


class Verifier:
    """
    Whether answers equal golds, with the reason.

    Args:
        deadline (`float`, *optional*, defaults to `3.0`):
            Seconds for each pair that needs computer algebra.
        workers (`int`, *optional*):
            Processes that grade; by default the cores of this rank, at most 8.
        cache_size (`int`, *optional*, defaults to `65536`):
            Verdicts that are kept from step to step.
    """

    def __init__(self, deadline: float = 3.0, workers: int | None = None, cache_size: int = 2**16):
        if not deadline > 0:
            raise ValueError(f"grading_deadline must be above 0 seconds, got {deadline}")
        if workers is not None and workers < 1:
            raise ValueError(f"grading_workers must be at least 1, got {workers}")
        self.deadline, self.workers, self.cache_size = deadline, workers, cache_size
        self._reset()
        _live.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._cache: OrderedDict[tuple[str, str], str] = OrderedDict()

    def verdicts(self, golds: Sequence[str | Sequence[str]], answers: Sequence[str | None]) -> list[str]:
        """
        One of [`REASONS`] for each answer, given its gold or golds.

        An answer equals several golds if it equals one of them.
        """
        choices = [[gold] if isinstance(gold, str) else list(gold) for gold in golds]
        pairs = {
            (gold, answer): self._at_once(gold, answer)
            for wanted, answer in zip(choices, answers, strict=True)
            for gold in wanted
        }
        asked = [pair for pair, verdict in pairs.items() if verdict is None]
        pairs.update(zip(asked, self.ask(asked), strict=True))
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
            self._cache.update(graded)
            for pair in pairs:
                self._cache.move_to_end(pair)
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
            return verdicts

    def self_check(self, golds: list[str]) -> list[str]:
        """The verdict on each gold as its own answer, by reading it: being written alike does not count."""
        readable = ["unparsable_gold" if is_blank(gold) else "" for gold in golds]
        verdicts = [known or plain_verdict(gold, gold) for gold, known in zip(golds, readable, strict=True)]
        asked = [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict is None]
        answers = iter(self.ask([(gold, gold) for gold in asked]))
        return [next(answers) if verdict is None else verdict for verdict in verdicts]

    def close(self) -> None:
        """End the processes; the next verdict starts new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def _grade(self, pairs: list[tuple[str, str]]) -> list[str]:
        if self._pool is None:
            self._pool = Pool(self.workers or default_workers(), self.deadline)
        try:
            return self._pool.grade(pairs)
        except BaseException:  # an answer that is still to come must not be taken for that of the next call
            self._pool.close()
            self._pool = None
            raise

    @staticmethod
    def _at_once(gold: str, answer: str | None) -> str | None:
        if is_blank(gold):
            return "correct" if gold.strip() and answer and is_same(gold, answer) else "unparsable_gold"
        if answer is None or not answer.strip():
            return "no_answer"
        if len(answer) > LONGEST:
            return "correct" if answer == gold else "unparsable_answer"
        return "correct" if is_same(gold, answer) else plain_verdict(gold, answer)

    def __reduce__(self):
        return Verifier, (self.deadline, self.workers, self.cache_size)


def _forget_in_fork() -> None:
    """A fork has no thread that would release the lock, and must not talk over the channel of its parent."""
    for verifier in list(_live):
        verifier._reset()


@lru_cache
def shared_verifier(deadline: float, workers: int | None) -> Verifier:
    """One verifier, with its processes and its cache, for all rewards with these settings."""
    return Verifier(deadline, workers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
