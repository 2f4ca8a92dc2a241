"""Find units, currencies and counted things beside a number: `12 dollars`, `60 km/h`, `7 red balls`, `€5`."""

import re
from functools import lru_cache
from itertools import pairwise

from .typed import NUMBER, ONE_NAME


# The spellings of measures, one measure per line; a name of three letters or more also has its plural
MEASURES = {
    spelling: line.split()[0]
    for line in """
        nm nanometer nanometre
        mm millimeter millimetre
        cm centimeter centimetre
        dm decimeter decimetre
        m meter metre 米
        km kilometer kilometre
        in inch inches
        ft foot feet
        yd yard
        mi mile
        mg milligram
        g gram
        kg kilogram kilo
        lb lbs pound £ gbp
        oz ounce
        ton tonne
        ml mL milliliter millilitre
        L l liter litre
        gal gallon
        ms millisecond
        s sec second
        min minute
        h hr hour
        day
        week
        month
        year yr
        am a.m
        pm p.m
        Hz hertz
        kHz
        N newton
        J joule
        kJ
        cal calorie
        kcal
        W watt
        kW kilowatt
        kWh
        V volt
        A amp ampere
        Pa pascal
        kPa
        atm
        psi
        K kelvin
        mol mole
        ° ^\\circ degree deg
        °C ^\\circC celsius
        °F ^\\circF fahrenheit
        rad radian
        mph
        kph kmh
        $ dollar usd buck
        € euro eur
        cent ¢
        ¥ yen jpy
        元 yuan rmb cny
        ₹ rupee inr rs
        cup
        pint
        quart
        byte
        kB kilobyte
        MB megabyte
        GB gigabyte
        Ω ohm
        MPa
        knot
        decade
        century centuries
        fortnight
        p penny pence
        nickel
        dime
        peso
        acre
        hectare ha
    """.strip().splitlines()
    for spelling in line.split()
}
SAME = {"mph": "mi/h", "kph": "km/h"}
# Words that turn the text before them into another number, a condition or a list
NO_UNIT = re.compile(
    r"and|or|if|when|where|while|is|are|not|no|mod|modulo|to|than|choose|plus|minus|over|but|otherwise|else|unless|for|as"
    r"|from|until|except|versus|below|above|under|past|base|neg|negative|percents?|pct|permille|percentage|fewer|less"
    r"|half|halfs|halves|(?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+teenth)s?"
    r"|(?:hundredth|thousandth|millionth|dozen|ten|hundred|thousand|million|billion|trillion|quadrillion|lakh|crore)s?"
    r"|zero|nothing|none|one|two|three|four|five|six|seven|eight|nine|eleven|twelve|\w+teen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|mil|bn|mn"
    r"|squared|cubed|factorial|doubled|halved|tripled|reciprocal|inverse|opposite|sqrt|conjugate|transpose"
    r"|repeating|recurring|modulus|remainder|wrong|false|invalid|incorrect|impossible|undefined|maybe|prozent|pour|por"
    r"|nicht|oder|sin|cos|tan|cot|sec|csc|log|ln|exp|eta|zeta|xi|nu|chi|kappa|iota"
    r"|january|february|march|april|may|june|july|august|september|october|november|december"
)
# Chinese words beside a number that are not units: scales, signs, connectives
NO_CHINESE_UNIT = re.compile("[万亿千百十零负不或和非约分之个半]+")
CURRENCY = re.compile(
    r"([+-]?)\s*(US\s?\\?\$|\\?\$|€|£|¥|₹|\\(?:pounds|euro)(?![A-Za-z])|(?:USD|EUR|GBP|RMB|Rs\.?)(?=[\s0-9.]))"
    r"\s*(?=[-+]?[0-9.\\])"
)
WRAPPER = r"\\(?:text|textnormal|mathrm|mbox|textbf|textrm|rm|operatorname)\s*\{"
WRAPPED = rf"{WRAPPER}[^{{}}]*\}}"
DEGREE = r"\^\s*\{?\s*\\circ\s*\}?\s*(?:[CF](?![A-Za-z]))?"
POWER = r"\s*\^\s*(?:\{\s*[23]\s*\}|[23])"
# One unit at the end of a text, with what joins it to the text before it
JOINT = r"\s*/\s*|\s*\\cdot\s*|\s*-\s*|(?:[\s~]|(?<!\\)\\[ ,;:!])*"
WORD = "[A-Za-zÀ-ÖØ-öø-ÿ]+|[\u4e00-\u9fff]+"
NAME = rf"{WRAPPED}|{DEGREE}|[€£¥₹¢]|(?<![\\A-Za-z^_])(?:{WORD})(?:\.[A-Za-z]+)*"
PIECE = re.compile(rf"(?P<joint>{JOINT})(?P<name>{NAME})\.?(?P<power>{POWER})?\s*$")
LONGEST_UNIT, MOST_WORDS = 80, 8  # characters, words
SPACE = re.compile(r"\\[ ,;:!]|~")
ORDINAL = re.compile(r"(?<=[0-9])(?:\s*\^\s*\{?)?\s*(?:\\(?:text|mathrm)\s*\{)?\s*(?:st|nd|rd|th)\s*\}*$")
SCALE_OF_DEGREES = re.compile(r"(?:°|\bdegrees?)\s*(C(?:elsius)?|F(?:ahrenheit)?)\b", re.IGNORECASE)
WRAPPED_TEXT = re.compile(rf"{WRAPPER}([^{{}}]*)\}}")
NO_WORD = re.compile(r"[0-9,;!+*=<>]")
COMMAND = re.compile(r"\\[A-Za-z]+")
LETTERS = re.compile(r"[^\W\d_]+")
OPERATOR = re.compile(r"\\operatorname\s*\{[^{}]*\}")
WORD_NAME = re.compile(r"([A-Za-z]{4,})\s*[=:]\s*(?=\S)")
PLAIN = re.compile(r"\s*[-+]?(?:[0-9.,/ ]+|[0-9 ]*\\[dt]?frac\{?[0-9]+\}?\{?[0-9]+\}?)\s*")
NAMED = re.compile(r"^\s*\\?[A-Za-z]+(?:_(?:\{\w+\}|\w))?\s*(?:\([^()]*\))?\s*=(?!=)")


@lru_cache(maxsize=2**16)
def split_unit(text: str) -> tuple[str, str, bool]:
    """
    The text without the unit around its number, the unit, and whether the unit's letters could be algebra.

    The unit is `""` where there is none.
    """
    if NUMBER.fullmatch(text):
        return text, "", False
    money = CURRENCY.match(text)
    if money is not None:
        value = money[1] + text[money.end() :]
        rest, unit, _ = (value, "", False) if CURRENCY.match(value) else split_unit(value)
        return rest, re.sub(r"US\s?(?=\\?\$)", "", money[2]).strip("\\.") or unit, False
    if ordinal := ORDINAL.search(text):
        return text[: ordinal.start()], "", False
    rest, pieces = text, []
    while (piece := PIECE.search(rest, max(0, len(rest) - LONGEST_UNIT))) is not None:
        rest = rest[: piece.start()]
        pieces.insert(0, piece)
        if len(pieces) > MOST_WORDS:
            return text, "", False
    return _checked(text, rest.strip(), pieces)


def _checked(text: str, rest: str, pieces: list[re.Match]) -> tuple[str, str, bool]:
    none = text, "", False
    if not pieces or not re.search(r"[0-9})|\]]$|\\(?:pi|infty)$", rest):
        return none
    first = pieces[0]
    unit = "".join(piece["joint"] + piece["name"] + (piece["power"] or "") for piece in pieces)
    unit = unit.removeprefix(first["joint"])
    known, bare = measure(unit) is not None, [piece["name"] for piece in pieces if _is_bare(piece["name"])]
    single = bool(bare) and all(len(name) == 1 and name.isalpha() and name.isascii() for name in bare)
    attached = not first["joint"] and first["name"] in bare
    allowed = (
        not SPACE.sub("", first["joint"]).strip()
        and (known or not changes_number(unit) and all(map(_is_word, bare)))
        and not (attached and (not known or len(first["name"]) == 1) and first["name"].isascii())
        and not any(len(word) > 1 for word in _words(NAMED.sub("", rest)))  # `5 feet 6 inches`
        # A letter after a formula is a letter: `5\sqrt{2} s`, `v = 2 g h`
        and (not single or (len(bare) == 1 or "/" in unit) and PLAIN.fullmatch(NAMED.sub("", rest)) is not None)
        and (known or is_numeric(rest))
    )
    return (rest, unit, bool(bare) and (single or not known)) if allowed else none


def changes_number(unit: str) -> bool:
    """Whether words after a number turn it into another number, or into none: `million`, `or more`, `2 thirds`."""
    words, wrapped = _words(unit), WRAPPED_TEXT.search(unit)
    if any(one == "per" and other in ("cent", "mille", "hundred") for one, other in pairwise(words)):
        return True
    if wrapped and (NO_WORD.search(wrapped[1]) or len(wrapped[1].strip()) == 1 and measure(wrapped[1]) is None):
        return True
    return any(NO_UNIT.fullmatch(word) or NO_CHINESE_UNIT.fullmatch(word) for word in words)


def _is_bare(name: str) -> bool:
    return not name.startswith(("\\", "^"))


def _words(text: str) -> list[str]:
    return [word.casefold() for word in LETTERS.findall(COMMAND.sub("", OPERATOR.sub("", text)))]


def _is_word(name: str) -> bool:
    """Whether letters after a number name a thing; `xy` and `abc` do not."""
    if not name.isascii() or name in ("sq", "cu") or measure(name) is not None:
        return True
    vowel = re.search(r"[aeiouyAEIOUY]", name)
    return len(name) > 2 and vowel is not None and name not in "abcdefghijklmnopqrstuvwxyz"


def is_numeric(text: str) -> bool:
    r"""Whether a text is a number without letters, or a name that equals one: `5\sqrt{2}`, `x = 3`."""
    value = COMMAND.sub(lambda found: "1" if found[0] == r"\pi" else " ", NAMED.sub("", text))
    return any(map(str.isdigit, value)) and LETTERS.search(value) is None


@lru_cache(maxsize=2**12)
def measure(unit: str) -> str | None:
    """A unit of measure in one spelling: `km/h` for `kilometers per hour`; None for any other word."""
    text = WRAPPED_TEXT.sub(r" \1 ", unit)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?\s*([CF]?)", r" °\1 ", SPACE.sub(" ", text))
    text = re.sub(r"\\(?:cdot|times)|\*|·", " ", text).replace("{", "").replace("}", "")
    text = SCALE_OF_DEGREES.sub(lambda found: f"°{found[1][0].upper()}", text)
    text = re.sub(r"\b(?:sq\.?|square)\s+(\S+)", r"\1^2", text)
    text = re.sub(r"\b(?:cu\.?|cubic)\s+(\S+)", r"\1^3", text)
    text = re.sub(r"\s+squared\b", "^2", re.sub(r"\s+cubed\b", "^3", text))
    text = re.sub(r"\bper\b", "/", text)
    parts = re.split(r"\s*(/|\^[0-9]|[\s-]+)\s*", text.strip(" ."))
    names = [part if re.fullmatch(r"/|\^[0-9]", part) else _measure(part) for part in parts if part.strip(" -")]
    return None if None in names or not names or names[0][0] in "/^" else SAME.get(found := "".join(names), found)


def _measure(name: str) -> str | None:
    name = name.strip(".")
    for spelling in (name, name.casefold()) if len(name) > 1 else (name,):
        singular = spelling[:-1] if len(spelling) > 3 and spelling.endswith("s") else spelling
        if (found := MEASURES.get(spelling) or MEASURES.get(singular)) is not None:
            return found
    return None


def without_units(gold: str, answer: str) -> tuple[str, str] | None:
    """
    Both texts without units and names; None if they have different measures, or one names another value.

    Units are not converted. Text that could be algebra (`2 m`) is a unit unless the other text has letters, like `2m`.
    """
    names = [name[1].casefold() if (name := WORD_NAME.match(text)) else "" for text in (gold, answer)]
    if names[0] != names[1] and any(map(changes_number, names)):
        return None  # `Reciprocal = 5`
    if "" in names or names[0] == names[1]:
        gold, answer = without_name(gold), without_name(answer)
    (gold_rest, gold_unit, gold_doubt), (rest, unit, doubt) = split_unit(gold), split_unit(answer)
    if gold_doubt and not unit and not is_numeric(rest) or doubt and not gold_unit and not is_numeric(gold_rest):
        return gold, answer
    measures = [measure(gold_unit) or _percent(gold_rest), measure(unit) or _percent(rest)]
    if None not in measures and measures[0] != measures[1] and not _are_degrees(*measures):
        return None
    return gold_rest, rest


def without_name(text: str) -> str:
    """The text without the word that names its value: `Area = 5`, `Speed: 60`."""
    name = WORD_NAME.match(text)
    if name is None or ONE_NAME.fullmatch(name[1]) or changes_number(name[1]):
        return text
    return text[name.end() :]


def _percent(text: str) -> str | None:
    return "%" if text.endswith("%") else None


def _are_degrees(one: str, other: str) -> bool:
    """Whether one is a plain degree (of an angle, or without a scale), and the other a degree on a named scale."""
    return "°" in (one, other) and one[:1] == other[:1]
