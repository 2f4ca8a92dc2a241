"""Verdicts that need no computer algebra: numbers, words, and answers written like the gold."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from .answers import closing_brace
from .typed import KEPT


LONGEST = 2000  # characters of an answer; no gold of MATH has more than 160
ROUNDED = Fraction(1, 10**5)  # relative tolerance where there are decimals
MOST_LAYERS = 8  # braces around an answer
DIGITS = r"[0-9]{1,300}"
INTEGER = rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,100}}|{DIGITS})"
DECIMAL = re.compile(rf"([+-]?)({INTEGER}?)(?:\.({DIGITS})?)?")
DECIMAL_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{1,2}$|[0-9]{4,}$)")
FRACTION = re.compile(
    rf"([+-]?)\\frac(?:\{{([+-]?{DIGITS})\}}|([0-9]))(?:\{{({DIGITS})\}}|([0-9]))|([+-]?)({DIGITS})/({DIGITS})"
)
# Names that an answer may give its value: `x`, `x_1`, `f(2)`
NAME = re.compile(r"\s*\\?[A-Za-z]+(?:_(?:\{\w+\}|\w+))?\s*(?:\([^()]*\))?\s*")
EQUALS = re.compile(r"(?<![<>!:\\=])==?(?!=)|\\equiv(?![A-Za-z])")
THOUSANDS = re.compile(r",(?=[0-9]{3}(?![0-9]))")
THOUSANDS_IN_LATEX = re.compile(r",(?:\\!)+\s*|\{,\}")
SEVERAL = re.compile(r",|;|\b(?:and|or)\b")
PERCENT = re.compile(r"\s*(?:\\%|%|\\?\s*\\text\{\s*per\s?cent\s*\}|per\s?cent|pct)\s*\.?\s*$")
DOLLAR = re.compile(r"(?<!\\)\$")
SPACING = re.compile(
    r"(?<!\\)\\[,;:! ]|~|\\q?quad(?![A-Za-z])|\\displaystyle(?![A-Za-z])|\\(?:left|right)(?![A-Za-z])"
)
WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|textrm|mbox|operatorname|bf|rm)\s*\{")
WRAPPER_OR_BRACE = re.compile(rf"{WRAPPER.pattern}|\\.|[{{}}]", re.DOTALL)
SPACE = re.compile(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")
CHOICE = re.compile(r"\(?([A-Za-z])\)?[.:]?")
PHRASE = re.compile(r"[^\W\d_]+(?:[\s,.'-]+[^\W\d_]+)*\.?")
# Letters that are hardly a product: four of them, one twice, or before a bracket (`Eq(`). Capitals are a name:
# `ABCD = 5`
NO_PRODUCT = re.compile(
    r"(?<![A-Za-z])(?![A-Z]+(?![A-Za-z]))(?:[A-Za-z]{4,}|[A-Za-z]*([A-Za-z])[A-Za-z]*\1[A-Za-z]*|[A-Z][a-z]+(?=\())"
)
INDEX = re.compile(r"_(?:\{[A-Za-z ]*\}|[A-Za-z])")
# A word, even a short one: of four letters, of capitals (`BCA`), with one capital (`No`)
WORD = re.compile(r"[^\W\d_]{4,}|(?<![^\W\d_])[A-Z](?:[A-Z]+|[a-z]+)(?![^\W\d_])")
SHORT_WORD = re.compile(
    r"(?<![^\W\d_])(?:no|not|none|yes|on|off|up|in|out|all|any|one|two|six|ten|odd|max|min|red|tie|win|won|low|top|big|new"
    r"|old|hot|wet|dry|cat|dog|cow|pig|hen|rat|bat|bee|ant|act|art|tar|tea|eat|car|bus|van|pot|man|men|boy|sun|sea|sky|ice"
    r"|day|now|left|god)(?![^\W\d_])",
    re.IGNORECASE,
)
TIME = re.compile(r"([0-9]{1,2})\s*:\s*([0-9]{2})")
IN_BASE = re.compile(r"([0-9A-Za-z]{1,300})_(?:\{([0-9]{1,2})\}|([0-9]))")


@lru_cache(maxsize=2**16)
def normalised(text: str) -> str:
    r"""The text without mere typesetting: spacing, `\left`, `\dfrac`, `\text{}`, a final full stop."""
    text = SPACING.sub(
        lambda found: "" if found[0] in (r"\left", r"\right", r"\!") else " ", DOLLAR.sub("", text).strip()
    )
    text = text.replace("{,}", ",").replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    text = _unwrapped(text).strip().removesuffix(".")
    return SPACE.sub("", " ".join(text.split()))


def _unwrapped(text: str) -> str:
    kept, opened, start = [], [], 0
    for found in WRAPPER_OR_BRACE.finditer(text):
        wraps = len(found[0]) > 2
        if found[0] == "{" or wraps:
            opened.append(wraps)
        elif found[0] == "}" and opened:
            wraps = opened.pop()
        if wraps:
            kept.append(text[start : found.start()])
            start = found.end()
    return text if any(opened) else "".join([*kept, text[start:]])


def without_percent(text: str) -> tuple[str, bool]:
    """The text without a final percent sign, and whether there was one."""
    text = " ".join(text.split())  # the patterns are slow on many spaces
    found = PERCENT.search(text)
    return (text[: found.start()], True) if found else (text, False)


@lru_cache(maxsize=2**16)
def is_words(gold: str) -> bool:
    r"""Whether the text is not maths: `\text{Evelyn}`, `(C)`, `no`, `Friday`, `BCA`; `xy` is a product."""
    bare = _bare(gold)
    wrapped = WRAPPER.search(gold) is not None
    if CHOICE.fullmatch(bare):
        return wrapped or bare.startswith("(")
    worded = wrapped or WORD.search(bare) or SHORT_WORD.search(bare)
    return bool(worded and PHRASE.fullmatch(bare))


def bare_letters(text: str) -> str | None:
    """
    "bare_letters" for a formula with letters that are hardly a product (`foo(x)+1`), "equal_text" for a sentence.

    None for words, and for text that may be a formula.
    """
    found = None if is_words(text) else NO_PRODUCT.search(INDEX.sub("", KEPT.sub(" ", text)))
    if found is None:
        return None
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return "bare_letters" if (before + after).strip(" \n.,;:$'-") else "equal_text"


def _letters(text: str) -> str:
    bare = _bare(text)
    choice = CHOICE.fullmatch(bare)
    return choice[1] if choice else re.sub(r"[\s.'-]", "", bare).casefold()


def _bare(text: str) -> str:
    return " ".join(_unwrapped(text).split()).strip("$., ")


class Number(NamedTuple):
    """A plain number."""

    value: Fraction
    percent: bool
    decimal: bool


@lru_cache(maxsize=2**16)
def number(text: str) -> Number | None:
    """The plain number that the text is, or None."""
    text, percent = without_percent(normalised_number(" ".join(text.split())))
    value = _value(text.strip())
    return None if value is None else Number(value, percent, "." in text)


def normalised_number(text: str) -> str:
    r"""The text without typesetting of numbers: `1{,}000`, `1,\!000`, `\dfrac`."""
    text = THOUSANDS_IN_LATEX.sub(",", text.strip()).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return text.removesuffix(".").strip()


def _value(text: str) -> Fraction | None:
    decimal = DECIMAL.fullmatch(text)
    if decimal is not None and (decimal[2] or decimal[3]):
        sign, whole, digits = decimal.groups()
        return Fraction(f"{sign}{whole.replace(',', '') or 0}.{digits or 0}")
    fraction = FRACTION.fullmatch(text)
    if fraction is None:
        return None
    outer, *parts = fraction[1] or fraction[6] or "", *(part for part in fraction.groups()[1:5] if part)
    top, bottom = parts or fraction.groups()[6:8]
    if int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom)) * (-1 if outer == "-" else 1)


def value_of_gold(gold: str) -> str:
    """The last side of a gold if it is an equation between numbers (`4+20=24`), else the gold."""
    *others, last = EQUALS.split(gold)
    return last if others and not any(map(str.isalpha, gold)) else gold


def sides(gold: str, answer: str) -> list[str]:
    """
    The sides of an answer that is an equation, without names (`x=24`); the answer itself if the gold is an equation
    too.

    math-verify only reads the last side, so `1=24` would pass for 24.
    """
    text = SPACING.sub(" ", answer).strip(" ,;").rstrip(".")
    for _ in range(MOST_LAYERS):
        if not text.startswith("{") or closing_brace(text, 1) != len(text) - 1:
            break
        text = text[1:-1]
    equations = [text]
    if SEVERAL.search(THOUSANDS.sub("", text)):
        equations = [] if SEVERAL.search(gold) else SEVERAL.split(text)
    if EQUALS.search(gold) or not equations or not all(map(EQUALS.search, equations)):
        return [answer]
    every = [side for equation in equations for side in _split_outside_braces(equation)]
    return [side for side in every if side.strip() and not NAME.fullmatch(side)] or [answer]


def _split_outside_braces(text: str) -> list[str]:
    depth, parts, start = 0, [], 0
    for found in re.finditer(rf"\\[{{}}]|[{{}}]|{EQUALS.pattern}", text):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if found[0] in ("=", "==", r"\equiv") and depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def is_blank(gold: str) -> bool:
    """Whether the text has nothing to compare: no letter and no digit."""
    return not any(map(str.isalnum, gold))


def is_same(gold: str, answer: str) -> bool:
    """Whether the two only differ in typesetting."""
    return normalised(gold) == normalised(answer)


def plain_verdict(gold: str, answer: str) -> str | None:
    """
    "correct" or "wrong" if no computer algebra is needed, else None.

    Numbers are compared exactly, decimals to 6 places as in math-verify. A gold `50%` accepts `50%`, `50` and `0.5`; a
    gold `50` only accepts `50`.
    """
    gold = value_of_gold(gold)
    right = _words_agree(gold, answer)
    if right is None:
        right = _forms_agree(gold, answer)
    if right is None:
        right = _numbers_agree(gold, answer)
    return None if right is None else "correct" if right else "wrong"


def _words_agree(gold: str, answer: str) -> bool | None:
    letters = CHOICE.fullmatch(_bare(gold)) and CHOICE.fullmatch(_bare(answer))
    return _letters(gold) == _letters(answer) if letters or is_words(gold) else None


def _forms_agree(gold: str, answer: str) -> bool | None:
    """Times of day, and numbers in a base."""
    for form in (TIME, IN_BASE):
        wanted, given = form.fullmatch(normalised(gold)), form.fullmatch(normalised(answer))
        if wanted and given:
            return _value_of(wanted) == _value_of(given)
    return None


def _numbers_agree(gold: str, answer: str) -> bool | None:
    wanted = number(gold)
    if wanted is None:
        return None
    given = [number(DECIMAL_COMMA.sub(".", side)) for side in sides(gold, answer)]
    return all(_equal(wanted, value) for value in given) if None not in given else None


def _value_of(found: re.Match) -> tuple | int | str:
    if found.re is TIME:
        return int(found[1]), int(found[2])
    base = int(found[2] or found[3])
    digits = [int(digit, 36) for digit in found[1]]
    return sum(d * base**place for place, d in enumerate(reversed(digits))) if max(digits) < base else found[0]


def _equal(gold: Number, answer: Number) -> bool:
    if gold.percent:
        values = [answer.value] if answer.percent else [answer.value, answer.value * 100]
    else:
        values = [answer.value / 100 if answer.percent else answer.value]
    return any(_close(gold.value, value, gold.decimal or answer.decimal) for value in values)


def _close(gold: Fraction, answer: Fraction, decimal: bool) -> bool:
    if gold == answer or not decimal or 1 in (gold.denominator, answer.denominator):
        return gold == answer
    return round(gold, 6) == round(answer, 6) and abs(gold - answer) <= ROUNDED * max(abs(gold), abs(answer))
