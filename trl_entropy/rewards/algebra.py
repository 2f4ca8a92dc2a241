"""Verdicts by computer algebra: math-verify, which can take for ever and so runs in a process of its own."""

import re
from functools import lru_cache

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Float, nan, zoo

from .answers import closing_brace
from .plain import ROUNDED, SPACE, SPACING, sides, value_of_gold, without_percent


def _reading(units: bool) -> list[LatexExtractionConfig]:
    normalization = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    return [
        LatexExtractionConfig(
            normalization_config=normalization, boxed_match_priority=0, try_extract_without_anchor=False
        )
    ]


# LaTeX only: math-verify's reading of plain text keeps the last number of what it cannot read.
# Units only where there is one: else `2 t` is two tonnes.
UNITS, NO_UNITS = _reading(units=True), _reading(units=False)
HAS_UNIT = re.compile(r"\\(?:text|mathrm|mbox|textbf)|\$|\\circ|(?<![\\A-Za-z])[A-Za-z]{2,}\.?$")
THOUSANDS_IN_LATEX = re.compile(r",(?:\\!)+\s*|\{,\}")
THOUSANDS = re.compile(r",(?=[0-9]{3}(?![0-9]))")
MIXED = re.compile(r"([0-9])\s+([0-9]+)\s*/\s*([0-9]+)")
DIGIT_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\s[0-9]{3})+(?![0-9])")
TWO_NUMBERS = re.compile(r"(?<![_^0-9.])[0-9.]+\s+[0-9]")
BRACKET = re.compile(r"[(\[]|\\\{")
BARE_FRAC = re.compile(r"\\[dt]?frac\s*(\\pi|[0-9])\s*([0-9])")
EXACT = 1e-12  # relative tolerance without decimals


def algebraic_verdict(gold: str, answer: str) -> str:
    """
    "correct", "wrong", "unparsable_answer" or "unparsable_gold".

    Every side of an answer that is an equation must equal the gold; only the last one must be readable.
    """
    gold_text, gold_percent = without_percent(value_of_gold(gold))
    wanted = expression(gold_text)
    if wanted is None:
        return "unparsable_gold"
    for position, side in enumerate(reversed(sides(gold_text, answer))):
        text, percent = without_percent(side)
        given = expression(text)
        if given is None:
            if position == 0:
                return "unparsable_answer"
            continue
        values = [given] if percent == gold_percent else [given, 100 * given] if gold_percent else [given / 100]
        if not any(equal(wanted, value) for value in values):
            return "wrong"
    return "correct"


@lru_cache(maxsize=1024)
def expression(text: str) -> Basic | None:
    """What math-verify reads the text as, or None."""
    text = readable(text)
    if text is None:
        return None
    config = UNITS if HAS_UNIT.search(text) else NO_UNITS
    parsed = parse(
        rf"\boxed{{{text}}}", config, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    return parsed[0] if parsed and not parsed[0].has(zoo, nan) else None


def readable(text: str) -> str | None:
    r"""The text in the LaTeX that math-verify reads as it is meant; None if that is not clear (`1 2`)."""
    text = THOUSANDS_IN_LATEX.sub(",", text).strip().rstrip(".,;\\").removeprefix(r"\approx").removeprefix("=")
    text = SPACING.sub(" ", text).replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    text = MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = DIGIT_GROUPS.sub(lambda found: re.sub(r"\s", "", found[0]), text)
    if not BRACKET.search(text) and text.count(",") == len(THOUSANDS.findall(text)):
        text = THOUSANDS.sub("", text)
    text = BARE_FRAC.sub(r"\\frac{\1}{\2}", text)
    text = SPACE.sub("", text)
    return None if TWO_NUMBERS.search(text) or not _balanced(text) else text


def _balanced(text: str) -> bool:
    return closing_brace(text + "}", 0) == len(text)


def equal(gold: Basic, answer: Basic) -> bool:
    """Whether math-verify finds them equal, and numbers also differ by no more than their rounding."""
    if not verify(gold, answer, timeout_seconds=None, raise_on_error=True):
        return False
    # math-verify compares numbers after rounding to 6 decimals: 1/2^99 would equal 1/2^98
    if not (getattr(gold, "is_number", False) and getattr(answer, "is_number", False)):
        return True
    tolerance = float(ROUNDED) if gold.has(Float) or answer.has(Float) else EXACT
    larger = max(abs(gold.evalf(30)), abs(answer.evalf(30)))
    return bool(abs((gold - answer).evalf(30)) <= tolerance * larger)
