"""Verdicts by computer algebra with math-verify, which may never finish and so runs in separate processes."""

import re
from functools import lru_cache

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import (
    And,
    Basic,
    Equality,
    Expr,
    FiniteSet,
    Float,
    I,
    Or,
    Rational,
    Set,
    Symbol,
    Tuple,
    nan,
    prime,
    simplify,
    zoo,
)
from sympy.core.relational import Relational

from .answers import closing_brace
from .plain import ROUNDED, SPACE, SPACING, THOUSANDS, THOUSANDS_IN_LATEX, sides, value_of_gold, without_percent
from .typed import KEPT
from .units import WRAPPED, changes_number


def _reading(units: bool) -> list[LatexExtractionConfig]:
    normalization = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    return [
        LatexExtractionConfig(
            normalization_config=normalization, boxed_match_priority=0, try_extract_without_anchor=False
        )
    ]


# LaTeX only: from plain text that it cannot read, math-verify keeps the last number. Units only in text at the end:
# otherwise `2 t` is two tonnes, and `2ab` is 2.
UNITS, NO_UNITS = _reading(units=True), _reading(units=False)
MIXED = re.compile(r"([0-9])\s+([0-9]+)\s*/\s*([0-9]+)")
DIGIT_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\s[0-9]{3})+(?![0-9])")
FINAL_TEXT = re.compile(rf"{WRAPPED}\s*$")
ELLIPSIS = re.compile(r"\\[lcd]?dots(?![A-Za-z])|\.\.\.")
TWO_NUMBERS = re.compile(r"(?<![_^0-9.])[0-9.]+\s+[0-9]")
BARE_LETTER = re.compile("[A-Za-z]")
KEPT_OR_LETTER = re.compile(rf"{KEPT.pattern}|{BARE_LETTER.pattern}")
BRACKET = re.compile(r"[(\[]|\\\{")
# `2(3)`, which math-verify reads as the mixed number 2 + 3
PRODUCT = re.compile(r"(?<=[0-9)])(?<![_^][0-9])\s*\((?=[^(),]*\))")
BARE_FRAC = re.compile(r"\\[dt]?frac\s*(\\pi|[0-9])\s*([0-9])")
# A set given by a condition: `\{x \mid x>3\}`
SET_BUILDER = re.compile(
    r"\\\{\s*[A-Za-z]\s*(?:\\in\s*(?:\\mathbb\s*\{R\}|\\mathbb\s*R|\\R)\s*)?(?:\\mid|\||:)\s*([^{}|:]*)\\\}"
)
OR, AND = (re.compile(rf"\\text\s*\{{\s*{word}\s*\}}|(?<![\\A-Za-z]){word}(?![A-Za-z])") for word in ("or", "and"))
EXACT = 1e-12  # relative tolerance without decimals


def algebraic_verdict(gold: str, answer: str) -> str:
    """
    "correct", "wrong", "unparsable_answer" or "unparsable_gold".

    If the answer is an equation, its last side must equal the gold, and so must every other side in the gold's
    letters.
    """
    gold, answer = _with_capitals_apart(gold, answer)
    gold_text, gold_percent = without_percent(value_of_gold(gold))
    wanted = expression(gold_text)
    if wanted is None:
        return "unparsable_gold"
    *others, last = [_values(side, gold_percent) for side in sides(gold_text, answer)]
    if not last:
        return "unparsable_answer"
    # A side in other letters than the gold (`m+n=24`) only names the value, and need not equal it
    known = [values for values in others if values and values[0].free_symbols <= wanted.free_symbols]
    right = all(any(equal(wanted, value) for value in values) for values in [*known, last])
    return "correct" if right else "wrong"


def _with_capitals_apart(gold: str, answer: str) -> tuple[str, str]:
    """Both texts, with a new letter for a capital beside its small letter: math-verify takes the two as one."""
    letters = [set(BARE_LETTER.findall(KEPT.sub(" ", text))) for text in (gold, answer)]
    both = {letter for found in letters for letter in found if letter.isupper() and letter.lower() in found}
    free = sorted(set("qwuvhjklmnoprstabcfgxyz") - {letter.lower() for found in letters for letter in found})
    change = dict(zip(sorted(both), free, strict=False))
    if not change:
        return gold, answer
    return tuple(KEPT_OR_LETTER.sub(lambda found: change.get(found[0], found[0]), text) for text in (gold, answer))


def _values(side: str, gold_percent: bool) -> list[Basic]:
    """The possible meanings of a side, given whether the gold is a percentage; empty if it cannot be read."""
    text, percent = without_percent(side)
    given = expression(text)
    if given is None:
        return []
    if percent == gold_percent or not isinstance(given, Expr):
        return [given]
    return [given, 100 * given] if gold_percent else [given / 100]


@lru_cache(maxsize=1024)
def expression(text: str) -> Basic | None:
    """math-verify's reading of the text, or None."""
    text = readable(text)
    if text is None or (final := FINAL_TEXT.search(text)) and final.start() and changes_number(final[0]):
        return None  # of `5 \text{ or more}` math-verify would only see the 5
    config = UNITS if final else NO_UNITS
    parsed = parse(
        rf"\boxed{{{text}}}", config, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    if not parsed or parsed[0].has(zoo, nan):
        return None
    return _joined(_with_imaginary_unit(parsed[0]), text)


def _with_imaginary_unit(parsed: Basic) -> Basic:
    """Make `i` the imaginary unit: math-verify reads it as a letter."""
    letters = [letter for letter in parsed.free_symbols if letter.name == "i"]
    return parsed.subs(dict.fromkeys(letters, I)) if isinstance(parsed, Expr | FiniteSet | Tuple) else parsed


def _joined(parsed: Basic, text: str) -> Basic:
    """Make `x<1 or x>2` one condition: math-verify reads it as a list."""
    inequalities = isinstance(parsed, FiniteSet) and all(map(_is_inequality, parsed.args)) and parsed.args
    if not inequalities or bool(OR.search(text)) == bool(AND.search(text)):
        return parsed
    return (Or if OR.search(text) else And)(*inequalities)


def _is_inequality(value: Basic) -> bool:
    return isinstance(value, Relational | And | Or) and not isinstance(value, Equality)


def readable(text: str) -> str | None:
    r"""The text as LaTeX that math-verify reads as intended; None if the meaning is not clear (`1 2`)."""
    text = THOUSANDS_IN_LATEX.sub(",", text).strip().rstrip(".,;\\").removeprefix(r"\approx").removeprefix("=")
    builder = SET_BUILDER.fullmatch(text)
    text = builder[1] if builder else text
    text = SPACING.sub(" ", text).replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    text = MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = DIGIT_GROUPS.sub(lambda found: re.sub(r"\s", "", found[0]), text)
    if not BRACKET.search(text) and text.count(",") == len(THOUSANDS.findall(text)):
        text = THOUSANDS.sub("", text)
    text = text.replace(r"\varnothing", r"\emptyset")
    text = PRODUCT.sub(r"\\cdot(", text)
    text = BARE_FRAC.sub(r"\\frac{\1}{\2}", text)
    text = SPACE.sub("", " ".join(text.split()))
    if "," in text:
        text = text.replace(r"\%", "").replace("%", "")  # a list of percentages
    return None if TWO_NUMBERS.search(text) or ELLIPSIS.search(text) or not _balanced(text) else text


def _balanced(text: str) -> bool:
    return closing_brace(text + "}", 0) == len(text)


def equal(gold: Basic, answer: Basic) -> bool:
    """Whether math-verify finds both equal, and numbers differ by no more than their rounding."""
    gold, answer = _as_sets(*_of_one_letter(gold, answer))
    if isinstance(gold, Symbol) and isinstance(answer, Expr) and not isinstance(answer, Symbol):
        answer = simplify(answer)  # math-verify compares a letter only with a letter
    if _differ_in_kind(gold, answer) or differ_at_a_point(gold, answer) or not _verified(gold, answer):
        return False
    # math-verify rounds numbers to 6 decimals before it compares them: 1/2^99 would equal 1/2^98
    if not (_is_finite_number(gold) and _is_finite_number(answer)):
        return True
    tolerance = float(ROUNDED) if gold.has(Float) or answer.has(Float) else EXACT
    larger = max(abs(gold.evalf(30)), abs(answer.evalf(30)))
    return bool(abs((gold - answer).evalf(30)) <= tolerance * larger)


def _of_one_letter(gold: Basic, answer: Basic) -> tuple[Basic, Basic]:
    """The right sides of `y = ...` and `y = ...`, which math-verify would solve for every letter."""
    sides = gold, answer
    name = gold.lhs if isinstance(gold, Equality) and isinstance(gold.lhs, Symbol) else None
    if all(isinstance(side, Equality) and side.lhs == name and not side.rhs.has(name) for side in sides):
        return gold.rhs, answer.rhs
    return sides


def _verified(gold: Basic, answer: Basic) -> bool:
    try:
        return verify(gold, answer, timeout_seconds=None, raise_on_error=True)
    except (KeyError, ValueError):
        if isinstance(gold, Relational | And | Or):
            return False  # math-verify cannot compare `x != 2` with `x != 3`, or two chains of different lengths
        raise


def _as_sets(gold: Basic, answer: Basic) -> tuple[Basic, Basic]:
    r"""Intervals and inequalities as sets: `(2,5]`, `2<x<=5`, `x \in (2,5]`; both unchanged if one is neither."""
    sets = [_solutions(gold), _solutions(answer)]
    letters = gold.free_symbols, answer.free_symbols
    return (gold, answer) if None in sets or all(letters) and letters[0] != letters[1] else (sets[0], sets[1])


def _solutions(value: Basic) -> Set | None:
    if isinstance(value, Equality) and isinstance(value.rhs, Set) and isinstance(value.lhs, Symbol):
        return value.rhs
    if _is_inequality(value) and len(value.free_symbols) == 1:
        try:
            return value.as_set()
        except NotImplementedError:  # sympy cannot solve it
            return None
    return value if isinstance(value, Set) and not isinstance(value, FiniteSet) else None


def _differ_in_kind(*sides: Basic) -> bool:
    """Whether one is an interval or a union and the other a single expression."""
    spread = [isinstance(side, Set) and not isinstance(side, FiniteSet) for side in sides]
    return any(spread) and any(isinstance(side, Expr) for side in sides)


def _is_finite_number(value: Basic) -> bool:
    return isinstance(value, Expr) and value.is_number and bool(value.is_finite)


def differ_at_a_point(gold: Basic, answer: Basic) -> bool:
    """Whether two expressions clearly differ when numbers replace their letters; this finds most wrong answers."""
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or Symbol in (type(gold), type(answer)):
        return False
    letters = sorted(gold.free_symbols | answer.free_symbols, key=str)
    for divisor in (7, 97):  # small numbers too: a series may diverge at larger ones
        point = {letter: Rational(prime(index + 5), divisor) for index, letter in enumerate(letters)}
        try:
            values = [side.subs(point).evalf(20) for side in (gold, answer)]
        except ValueError:  # the series diverges
            continue
        if all(map(_is_finite_number, values)):
            difference = abs((values[0] - values[1]).evalf(20))
            return bool(difference > 1e-3 * max(1, *(abs(value).evalf(20) for value in values)))
    return False
