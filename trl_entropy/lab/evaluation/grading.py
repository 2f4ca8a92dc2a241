"""Which responses are right, and which say the same."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ...rewards.verifier import Verifier


UNREAD = ("unparsable_answer", "timeout", "error")


def answer_classes(
    answers: Sequence[Sequence[str | None]], reasons: Sequence[Sequence[str]], verifier: Verifier
) -> np.ndarray:
    """
    Number of each answer's class within its problem, `(P, K)`: equal for answers that the verifier finds equal.

    The correct ones are one class. Another answer joins the first class, in the order of samples, whose first answer
    it equals. One that could not be read, or took too long, equals itself as it is written. -1 where there is none.

    Args:
        answers (`Sequence[Sequence[str | None]]`):
            `(P, K)`.
        reasons (`Sequence[Sequence[str]]`):
            `(P, K)`: verdicts on them.
        verifier ([`~rewards.Verifier`]):
            Compares answers; every problem's open ones with one of them at a time.
    """
    numbers = [_settled(*problem) for problem in zip(answers, reasons, strict=True)]
    following = [max(known.values(), default=-1) + 1 for known in numbers]
    opened = {
        place: list(dict.fromkeys(answer for answer in row if answer is not None and answer not in numbers[place]))
        for place, row in enumerate(answers)
    }
    while opened := {place: rest for place, rest in opened.items() if rest}:
        pairs = [(place, rest[0], answer) for place, rest in opened.items() for answer in rest[1:]]
        verdicts = verifier.verdicts([first for _, first, _ in pairs], [answer for _, _, answer in pairs])
        others = defaultdict(list)
        for place, rest in opened.items():
            numbers[place][rest[0]] = following[place]
        for (place, _, answer), verdict in zip(pairs, verdicts, strict=True):
            if verdict == "correct":
                numbers[place][answer] = following[place]
            else:
                others[place].append(answer)
        for place in opened:
            following[place] += 1
        opened = others
    return np.array(
        [[-1 if answer is None else numbers[place][answer] for answer in row] for place, row in enumerate(answers)]
    )


def _settled(answers: Sequence[str | None], reasons: Sequence[str]) -> dict[str, int]:
    """Classes that need no comparison, by answer: 0 for all that are correct, and one for each that was not read."""
    numbers = {answer: 0 for answer, reason in zip(answers, reasons, strict=True) if reason == "correct"}
    for answer, reason in zip(answers, reasons, strict=True):
        if reason in UNREAD and answer is not None:
            numbers.setdefault(answer, max(numbers.values(), default=-1) + 1)
    return numbers
