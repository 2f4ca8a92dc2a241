r"""Turn typed maths into LaTeX: `2*pi`, `sqrt(3)/2`, `3e8`, `１２`, `–5`, `x²`, `**5**`."""

import re
from functools import lru_cache

from .answers import IN_MATHS, inside


GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|Gamma|Delta|Theta|Sigma|Phi|Omega"
SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
RAISED, LOWERED = (re.compile(f"[{''.join(signs)}]+") for signs in (SUPERSCRIPT, SUBSCRIPT))
SMALL_GREEK = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
    ),
    *("omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
CHARACTERS = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
        **dict.fromkeys("−–‒﹣‐‑", "-"),
        **{"。": ".", "、": ",", "％": r"\%", "\u3000": " ", "\u00a0": " ", "\u202f": " "},
        **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "±": r"\pm "},
        **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "∅": r"\emptyset ", "∪": r"\cup ", "∈": r"\in "},
        **{"°": r"^\circ ", "℃": r"^\circ C", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
        **{"⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "ℝ": r"\mathbb{R}"},
        **{chr(0x3B1 + place): rf"\{name} " for place, name in enumerate(SMALL_GREEK)},
        **{"Δ": r"\Delta ", "Σ": r"\Sigma ", "Ω": r"\Omega "},
    }
)
NUMBER = re.compile(r"[0-9.,/-]+")
# Not the powers of `x**2 + y**2`
BOLD = re.compile(r"(?<![\w)\]}])\*\*(?=\S)(.+?)(?<=\S)\*\*(?![\w(\\])", re.DOTALL)
MINUS_POWER = re.compile(r"\^(-[0-9]+)")
IN_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*([+-]?[0-9][^{}]*)\}")
BOLD_DIGITS = re.compile(r"\\(?:mathbf|boldsymbol|bm)\s*\{([^{}A-Za-z]*)\}|\\bf(?![A-Za-z])\s*")
UPRIGHT = re.compile(r"\\mathrm\s*\{\s*([ei])\s*\}")  # Euler's number and the imaginary unit
SCALE = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
SCALED = re.compile(
    rf"(?<=[0-9}}])(?:\s|~|\\[ ,;:!])*(\\(?:text|mathrm|textbf)\s*\{{)?\s*({'|'.join(SCALE)})(?![A-Za-z])\s*(\}})?",
    re.IGNORECASE,
)
DIGITS = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
SCIENTIFIC = re.compile(rf"(?<![\w.\\^])(?<![0-9],){DIGITS}[eE]([+-]?[0-9]{{1,4}})(?!\w|\.[0-9])")
# As a separate factor: `7/2 \cdot 10^3` is not 7/2000
POWER_OF_TEN = re.compile(
    rf"(?<![\w.\\^/])(?<![0-9],){DIGITS}\s*\\(?:times|cdot)\s*10\s*\^\s*(?:([0-9])|\{{\s*([+-]?[0-9]{{1,4}})\s*\}})(?![\w.])"
)
LONGEST_EXPONENT = 40  # up to this, digits are written out
# What stays unchanged: text, the names of environments, and LaTeX commands
KEPT = re.compile(
    r"\\begin\s*\{array\}\s*\{[^{}]*\}|\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\*?\s*\{[^{}]*\}|\\[A-Za-z]+"
)
FUNCTION = "arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp"
COMMANDS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "inf": "infty", "infinity": "infty"}
KEPT_OR_NAME = re.compile(
    rf"(?P<kept>{KEPT.pattern})"
    rf"|(?<![A-Za-z])(?:(?:max|min|gcd|lcm)(?=\s*\()|(?:{FUNCTION})(?=\s*[\w(\\^{{])(?:(?![A-Za-z])|(?=[xyz](?![A-Za-z])))"
    rf"|(?:pi|inf|infty|infinity|{GREEK})(?![A-Za-z]))"
)
ONE_NAME = re.compile(rf"[A-Za-z]|(?:{FUNCTION})[xyz]?|sqrt|abs|pi|inf|infty|infinity|{GREEK}")
ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*(?:([0-9]+(?:\.[0-9]+)?|[A-Za-z](?![A-Za-z]))|\()|\\sqrt\s*\(")
ABSOLUTE = re.compile(r"(?<![\\A-Za-z])abs\s*\(")
WORDS = re.compile(r"[^\W\d_]+(?:[\s,.'-]+[^\W\d_]+)*\.?")


@lru_cache(maxsize=2**16)
def as_latex(text: str) -> str:
    r"""The text with typed maths as LaTeX; words and `\text{...}` stay unchanged."""
    if NUMBER.fullmatch(text):
        return text  # most answers have nothing to convert
    text = " ".join(text.translate(CHARACTERS).split())
    text = BOLD.sub(r"\1", IN_MATHS.sub(inside, text)).strip()
    text = UPRIGHT.sub(r"\1", BOLD_DIGITS.sub(r"\1", text))
    text = RAISED.sub(lambda found: f"^{{{''.join(map(SUPERSCRIPT.get, found[0]))}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{''.join(map(SUBSCRIPT.get, found[0]))}}}", text)
    text = whole[1] if (whole := IN_TEXT.fullmatch(text)) else text
    text = MINUS_POWER.sub(r"^{\1}", text)
    if WORDS.fullmatch(text) and not all(map(ONE_NAME.fullmatch, re.findall(r"[^\W\d_]+", text))):
        return text
    text = SCALED.sub(_scaled, text)
    text = SCIENTIFIC.sub(lambda found: _decimal(found[1], int(found[2])), text)
    text = POWER_OF_TEN.sub(lambda found: _decimal(found[1], int(found[2] or found[3])), text)
    text = text.replace("**", "^").replace("*", r"\cdot ")
    text = _bracketed(ROOT, r"\sqrt{", "}", text)
    text = _bracketed(ABSOLUTE, "|", "|", text)
    return KEPT_OR_NAME.sub(lambda found: found["kept"] or f"\\{COMMANDS.get(found[0], found[0])} ", text)


def _scaled(found: re.Match) -> str:
    opened, word, closed = found.groups()
    rest = (closed or "") if opened is None else "" if closed else opened
    return rf"\cdot 10^{{{SCALE[word.casefold()]}}} {rest}"


def _decimal(digits: str, exponent: int) -> str:
    """`digits` times 10 to the `exponent` in plain digits, or as a power if there would be too many digits."""
    digits = digits.replace(",", "")
    if abs(exponent) > LONGEST_EXPONENT:
        return rf"{digits}\cdot 10^{{{exponent}}}"
    whole, _, places = digits.partition(".")
    if exponent < 0:
        moved = whole.zfill(-exponent + 1)
        return f"{moved[:exponent]}.{moved[exponent:]}{places}"
    moved = places.ljust(exponent, "0")
    return f"{whole}{moved[:exponent]}" + (f".{moved[exponent:]}" if moved[exponent:] else "")


def _bracketed(function: re.Pattern, opening: str, closing: str, text: str) -> str:
    """The text with `sqrt(...)` as LaTeX."""
    start = 0
    while (found := function.search(text, start)) is not None:
        if not found[0].endswith("("):
            text = text[: found.start()] + opening + found[1] + closing + text[found.end() :]
        else:
            end = _closing_bracket(text, found.end())
            if end is None:
                break
            text = text[: found.start()] + opening + text[found.end() : end] + closing + text[end + 1 :]
        start = found.start() + 1
    return text


def _closing_bracket(text: str, start: int) -> int | None:
    depth = 1
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return None
