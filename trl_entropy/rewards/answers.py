r"""Find the answer in a text: the last `\boxed{}`, or a named fallback."""

import re
from collections.abc import Callable, Sequence


# Fallbacks only read the end of a text, so that no text can make them slow
TAIL = 4096  # characters
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
IN_MATHS = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]", re.DOTALL
)
ANNOUNCED = re.compile(
    r"(?:answer\s*(?:\*+\s*)?(?:is|:|=)|answer ?\*\*|^[ \t#]*(?:the )?(?:final )?answer[ \t]*$|^[ \t]*A:)[\s:*]*",
    re.IGNORECASE | re.MULTILINE,
)
END_OF_SENTENCE = re.compile(r"\.\s|\.?\s*$|\n|\s(?:because|since)\s", re.MULTILINE)
MINUS = "(?:(?<![\\w)])[-\u2212\u2013])"  # in `3-5`, 5 is the last number
NUMBER = re.compile(
    rf"{MINUS}?(?:\d+\s*)?\\[dt]?frac\{{-?\d+\}}\{{-?\d+\}}|{MINUS}?\d+\s+\d+/\d+|{MINUS}?\d{{1,3}}(?: \d{{3}})+(?!\d)"
    rf"|{MINUS}?\d[\d,]*(?:\.\d+)?[eE][+-]?\d+(?!\w)|{MINUS}?\d[\d,]*(?:\.\d+|/\d+)?|{MINUS}?\.\d+"
)
# Words that make a text a sentence rather than maths
SENTENCE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s|[^\W\d_A-Za-z]{2,}|\n")
# Words that announce the maths after them as the answer
CONCLUDES = re.compile(r"(?:\b(?:is|are|equals?|gives?|get|obtain)|=)[\s:]*$")
# Words that change the maths after them
NARROWS = re.compile(
    r"\b(?:not|no|except|least|most|minus|multiples? of|below|above|under|over|than)\s*$", re.IGNORECASE
)
A_SENTENCE = 300  # characters; a longer text is a solution, and its last maths is the answer
# What may be between two boxes that give one answer together
CONNECTIVE = re.compile(r"(?:\s|[,;$.]|\\[()\[\],;]|\\q?quad|\\text\{[^{}]{0,40}\}|and|or)*")


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{}` or `\fbox{}`; None if it is not closed."""
    start = _last_box(text)
    opening = OPENING.match(text, start) if start >= 0 else None
    end = opening and closing_brace(text, opening.end())
    return text[opening.end() : end] if end else None


def _last_box(text: str) -> int:
    return max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))


def closing_brace(text: str, start: int) -> int | None:
    """The place where the brace that is open at `start` closes; escaped braces do not count."""
    depth = 1
    for brace in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def all_boxed(text: str) -> str | None:
    r"""The contents of the last `\boxed{}`s that only commas, "and" or "or" separate, as a list."""
    spans, start = [], 0
    tail = text[max(0, _last_box(text) - TAIL) :]
    while (opening := OPENING.search(tail, start)) is not None:
        end = closing_brace(tail, opening.end())
        if end is None:
            return None
        spans.append((opening.start(), tail[opening.end() : end], end + 1))
        start = end + 1
    run = spans[-1:]
    for before in reversed(spans[:-1]):
        if CONNECTIVE.fullmatch(tail, before[2], run[0][0]) is None:
            break
        run.insert(0, before)
    return ", ".join(content for _, content, _ in run) if run else None


def announced(text: str) -> str | None:
    """The text after the last "answer is", "answer:" or "A:", up to the end of the sentence."""
    tail = text[-TAIL:]
    places = [match.end() for match in ANNOUNCED.finditer(tail)]
    if not places:
        return None
    rest = tail[places[-1] :]
    maths = IN_MATHS.match(rest)
    if maths is not None:
        return inside(maths)
    phrase = rest[: END_OF_SENTENCE.search(rest).start()].replace("**", "").strip(" *")
    return (last_maths(phrase) if SENTENCE.search(phrase) else None) or phrase or None


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last `####`."""
    _, hashes, rest = text[-TAIL:].rpartition("####")
    line = rest.strip().split("\n")[0].strip() if hashes else ""
    return announced(line) or line or None


def last_latex(text: str) -> str | None:
    r"""The content of the last `$...$`, `$$...$$`, `\(...\)` or `\[...\]`."""
    found = list(IN_MATHS.finditer(text[-TAIL:]))
    return inside(found[-1]) if found else None


def last_number(text: str) -> str | None:
    """The last number."""
    found = NUMBER.findall(text[-TAIL:])
    return found[-1].rstrip(",") if found else None


def last_maths(text: str) -> str | None:
    """The last LaTeX, or the last number if it comes later; the whole text if it has no words."""
    tail = text[-TAIL:].strip()
    latex = list(IN_MATHS.finditer(tail))
    if latex and not NUMBER.search(tail, latex[-1].end()):
        return inside(latex[-1])
    if tail and len(tail) < len(text.strip()) or SENTENCE.search(tail + " ") or latex:
        return last_number(tail)
    return tail or None


def inside(maths: re.Match) -> str:
    """The content between the dollars or brackets of a match of [`IN_MATHS`]."""
    return next(group for group in maths.groups() if group is not None).strip()


SOURCES: dict[str, Callable[[str], str | None]] = {
    "boxed": last_boxed,
    "all_boxed": all_boxed,
    "announced": announced,
    "hashes": after_hashes,
    "last_latex": last_latex,
    "last_maths": last_maths,
    "last_number": last_number,
}


def answer_in(text: str, sources: Sequence[str] = ("boxed",)) -> str | None:
    """The answer in a completion, from the first of `sources` that finds one, or None."""
    found = (SOURCES[source](text) for source in sources)
    return next((answer for answer in found if answer is not None and answer.strip()), None)


def gold_in(solution: str) -> str:
    r"""
    The answer in a solution: boxed, after `####`, between dollars, or bare; empty if there is none.

    A short text with words and several formulas (`maximum $(2,2)$; saddle $(0,0)$`) is the answer as a whole, unless a
    verb introduces its last formula (`so $x$ is $2$`).
    """
    text = solution.rsplit("####", 1)[-1].strip()[-TAIL:]
    if OPENING.search(text):
        return (all_boxed(text) or "").strip()
    maths = list(IN_MATHS.finditer(text))
    if not maths:
        return text.replace("$", "").strip() if text.strip("$ ") == "" else text
    if CONNECTIVE.fullmatch(IN_MATHS.sub("", text)):
        return ", ".join(map(inside, maths))
    before, after = text[: maths[-1].start()], text[maths[-1].end() :]
    alone = len(maths) == 1 and not any(map(str.isdigit, before)) and not any(map(str.isalnum, after))
    alone = alone and NARROWS.search(before) is None
    names = not any(map(str.isdigit, "".join(map(inside, maths[:-1]))))
    return inside(maths[-1]) if alone or len(text) > A_SENTENCE or names and CONCLUDES.search(before) else text
