"""Units, currencies and counted things beside a number: `12 dollars`, `60 km/h`, `7 red balls`, `€5`."""

import re
from functools import lru_cache

from .typed import NUMBER


# The spellings of a measure, one measure a line; a name of three letters or more also has its plural
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
        lb lbs pound £
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
        acre
        hectare ha
    """.strip().splitlines()
    for spelling in line.split()
}
SAME = {"mph": "mi/h", "kph": "km/h"}
# Words that make a condition, a list or a number of what stands before them
NO_UNIT = re.compile(
    r"(?:and|or|if|when|where|while|is|are|not|no|mod|modulo|to|than|choose|plus|minus|over|but|otherwise|else|unless|for"
    r"|as|percent|pct|factorial|squared|cubed|dozen|hundred|thousand|million|billion|trillion)"
)
CURRENCY = re.compile(
    r"([+-]?)\s*(US\s?\\?\$|\\?\$|€|£|¥|₹|\\(?:pounds|euro)(?![A-Za-z])|(?:USD|EUR|GBP|RMB|Rs\.?)(?=[\s0-9.]))"
    r"\s*(?=[-+]?[0-9.\\])"
)
WRAPPED = r"\\(?:text|mathrm|mbox|textbf|textrm|rm|operatorname)\s*\{[^{}]*\}"
DEGREE = r"\^\s*\{?\s*\\circ\s*\}?\s*(?:[CF](?![A-Za-z]))?"
POWER = r"\s*\^\s*(?:\{\s*[23]\s*\}|[23])"
# One unit at the end of a text, with what joins it to the text before
JOINT = r"\s*/\s*|\s*\\cdot\s*|\s*-\s*|(?:[\s~]|(?<!\\)\\[ ,;:!])*"
NAME = rf"{WRAPPED}|{DEGREE}|(?<![\\A-Za-z^_])[^\W\d_]+(?:\.[^\W\d_]+)*"
PIECE = re.compile(rf"(?P<joint>{JOINT})(?P<name>{NAME})\.?(?P<power>{POWER})?\s*$")
LONGEST_UNIT = 80  # characters
SPACE = re.compile(r"\\[ ,;:!]|~")
ORDINAL = re.compile(r"(?<=[0-9])(?:\s*\^\s*\{?)?\s*(?:\\(?:text|mathrm)\s*\{)?\s*(?:st|nd|rd|th)\s*\}*$")
COMMAND = re.compile(r"\\[A-Za-z]+")
LETTERS = re.compile(r"[^\W\d_]+")
NAMED = re.compile(r"^\s*\\?[A-Za-z]+(?:_(?:\{\w+\}|\w))?\s*(?:\([^()]*\))?\s*=(?!=)")


@lru_cache(maxsize=2**16)
def split_unit(text: str) -> tuple[str, str, bool]:
    """
    The text without the unit around its number, the unit, and whether the letters of the unit could be algebra.

    The unit is `""` where there is none.
    """
    if NUMBER.fullmatch(text):
        return text, "", False
    money = CURRENCY.match(text)
    if money is not None:
        rest, unit, _ = split_unit(money[1] + text[money.end() :])
        return rest, re.sub(r"US\s?(?=\\?\$)", "", money[2]).strip("\\.") or unit, False
    if ordinal := ORDINAL.search(text):
        return text[: ordinal.start()], "", False
    rest, pieces = text, []
    while (piece := PIECE.search(rest, max(0, len(rest) - LONGEST_UNIT))) is not None:
        rest = rest[: piece.start()]
        pieces.insert(0, piece)
    return _checked(text, rest.strip(), pieces)


def _checked(text: str, rest: str, pieces: list[re.Match]) -> tuple[str, str, bool]:
    none = text, "", False
    if not pieces or not rest or not re.search(r"[0-9})|\]]$|\\(?:pi|infty)$", rest):
        return none
    first, names = pieces[0], [piece["name"] for piece in pieces]
    unit = "".join(piece["joint"] + piece["name"] + (piece["power"] or "") for piece in pieces)
    unit = unit.removeprefix(first["joint"])
    words = [word.casefold() for word in LETTERS.findall(COMMAND.sub("", unit))]
    if SPACE.sub("", first["joint"]).strip() or any(map(NO_UNIT.fullmatch, words)):
        return none
    bare = [name for name in names if not name.startswith(("\\", "^"))]
    known = measure(unit) is not None
    if not known and not all(map(_is_word, bare)):
        return none
    attached = not first["joint"] and first["name"] in bare
    if attached and not (known and len(first["name"]) > 1 or not first["name"].isascii()):
        return none
    if any(len(word) > 1 for word in LETTERS.findall(COMMAND.sub("", _unwrapped_operators(rest)))):
        return none  # `5 feet 6 inches`
    single = bool(bare) and all(len(name) == 1 and name.isascii() for name in bare)
    if (single or not known) and not is_numeric(rest):
        return none
    return rest, unit, bool(bare) and (single or not known)


def _unwrapped_operators(text: str) -> str:
    return re.sub(r"\\operatorname\s*\{[^{}]*\}", "", text)


def _is_word(name: str) -> bool:
    """Whether letters after a number name a thing: not `xy`, `abc`."""
    if not name.isascii() or name in ("sq", "cu") or measure(name) is not None:
        return True
    return (
        len(name) > 2 and re.search(r"[aeiouyAEIOUY]", name) is not None and name not in "abcdefghijklmnopqrstuvwxyz"
    )


def is_numeric(text: str) -> bool:
    """Whether a text is a number without letters, or a name that equals one: `5\\sqrt{2}`, `x = 3`."""
    value = COMMAND.sub(lambda found: "1" if found[0] == r"\pi" else " ", NAMED.sub("", text))
    return any(map(str.isdigit, value)) and LETTERS.search(value) is None


@lru_cache(maxsize=2**12)
def measure(unit: str) -> str | None:
    """A unit of measure in one spelling: `km/h` for `kilometers per hour`; None for any other word."""
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|textrm|rm|operatorname)\s*\{([^{}]*)\}", r" \1 ", unit)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?\s*([CF]?)", r" °\1 ", SPACE.sub(" ", text))
    text = re.sub(r"\\(?:cdot|times)|\*|·", " ", text).replace("{", "").replace("}", "")
    text = re.sub(r"\b(?:sq\.?|square)\s+(\S+)", r"\1^2", text)
    text = re.sub(r"\b(?:cu\.?|cubic)\s+(\S+)", r"\1^3", text)
    text = re.sub(r"\s+squared\b", "^2", re.sub(r"\s+cubed\b", "^3", text))
    text = re.sub(r"\bper\b", "/", text)
    parts = re.split(r"\s*(/|\^[0-9]|[\s-]+)\s*", text.strip(" ."))
    names = [part if re.fullmatch(r"/|\^[0-9]", part) else _measure(part) for part in parts if part.strip(" -")]
    return None if None in names or not names else SAME.get(found := "".join(names), found)


def _measure(name: str) -> str | None:
    name = name.strip(".")
    for spelling in (name, name.casefold()) if len(name) > 1 else (name,):
        singular = spelling[:-1] if len(spelling) > 3 and spelling.endswith("s") else spelling
        if (found := MEASURES.get(spelling) or MEASURES.get(singular)) is not None:
            return found
    return None


def without_units(gold: str, answer: str) -> tuple[str, str] | None:
    """
    Both texts without their units; None if each has a measure, and not the same.

    Units are not converted. What could be algebra (`2 m`) is a unit unless the other text is in letters, as `2m` is.
    """
    (gold_rest, gold_unit, gold_doubt), (rest, unit, doubt) = split_unit(gold), split_unit(answer)
    if gold_doubt and not unit and not is_numeric(rest) or doubt and not gold_unit and not is_numeric(gold_rest):
        return gold, answer
    measures = [measure(gold_unit), measure(unit)]
    if None not in measures and measures[0] != measures[1]:
        return None
    return gold_rest, rest
