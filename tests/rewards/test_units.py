"""Units beside a number."""

import time

import pytest

from trl_entropy.rewards.typed import as_latex
from trl_entropy.rewards.units import measure, split_unit, without_units


@pytest.mark.parametrize(
    ("text", "rest", "unit"),
    [
        ("12 dollars", "12", "dollars"),
        ("60 km/h", "60", "km/h"),
        ("12 m^2", "12", "m^2"),
        ("7 red balls", "7", "red balls"),
        (r"5 \text{ cm}", "5", r"\text{ cm}"),
        (r"5\,\mathrm{cm}^2", "5", r"\mathrm{cm}^2"),
        (r"5~\mbox{inches}^{3}", "5", r"\mbox{inches}^{3}"),
        (r"-40^{\circ}", "-40", r"^{\circ}"),
        (r"\$5", "5", "$"),
        ("-$5", "-5", "$"),
        (r"\$1,000.50", "1,000.50", "$"),
        ("US$ 5", "5", "$"),
        ("EUR 5", "5", "EUR"),
        ("x = 5 meters", "x = 5", "meters"),
        (r"\frac{3}{4} hours", r"\frac{3}{4}", "hours"),
        (r"12\pi cm", r"12\pi", "cm"),
        ("(3,4) cm", "(3,4)", "cm"),
        ("5cm", "5", "cm"),
        ("42元", "42", "元"),
        ("12个苹果", "12", "个苹果"),
        ("12th", "12", ""),
        (r"12^{\text{th}}", "12", ""),
        ("1 3/4 cups", "1 3/4", "cups"),
    ],
)
def test_unit_is_split_off(text, rest, unit):
    assert split_unit(text)[:2] == (rest, unit)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "12",
            "12x",
            "12 x",
            "2t",
            "5a",
            "3n+1",
            "2 m + 3",
            "m n",
            "12 x^2",
            r"4 \pi",
            "3 i",
            "5 e",
            "12 xy",
            "abc",
        ),
        *(
            "5 feet 6 inches",
            "5 and 6",
            "3 or x",
            "5 million",
            "4 dozen",
            "12 percent",
            "3 if x",
            "x is even",
            "Friday",
        ),
        *(
            r"\text{Evelyn}",
            r"x \text{ even}",
            r"\frac{1}{29,\!322}",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            "2 k + 2",
        ),
    ],
)
def test_what_is_not_a_unit_stays(text):
    assert split_unit(text) == (text, "", False)


@pytest.mark.parametrize(
    ("unit", "other"),
    [
        ("km/h", "kilometers per hour"),
        ("km/h", r"\mathrm{~km} / \mathrm{h}"),
        ("mph", "miles per hour"),
        ("m^2", "square meters"),
        ("cm^3", "cubic centimetres"),
        ("ft^{2}", "sq. ft"),
        ("s", "seconds"),
        ("$", "dollars"),
        ("£", "pounds"),
        (r"^\circ", "degrees"),
        (r"^\circ C", r"^{\circ}\mathrm{C}"),
        (r"\text{ p.m.}", "PM"),
    ],
)
def test_spellings_of_a_measure_are_one(unit, other):
    assert measure(unit) is not None
    assert measure(unit) == measure(other)


@pytest.mark.parametrize("unit", ["people", "red balls", "ways", "units", "x", "cm of snow"])
def test_counted_thing_is_not_a_measure(unit):
    assert measure(unit) is None


@pytest.mark.parametrize(
    ("gold", "answer", "texts"),
    [
        ("12 cm", "13 centimeters", ("12", "13")),
        ("12 cm", "12 m", None),
        ("12 m^2", "12 m^3", None),
        (r"5:30 \text{ p.m.}", "5:30 am", None),
        ("7 red balls", "7 blue balls", ("7", "7")),  # only measures are compared
        ("12 units", "12 cm", ("12", "12")),
        # What may be a letter of algebra is one if the other text is in letters
        ("2 m", "2", ("2", "2")),
        ("2 m", "2m", ("2 m", "2m")),
        ("2m", "2 m", ("2m", "2 m")),
        ("2 m", "m + m", ("2 m", "m + m")),
        ("2 m", r"2 \text{ m}", ("2", "2")),
    ],
)
def test_measures_are_compared_and_the_rest_is_left(gold, answer, texts):
    assert without_units(gold, answer) == texts


@pytest.mark.parametrize(
    "text",
    [
        *("m/s " * 500, "12 " + " é" * 900, r"\$" * 900 + "5"),
        "12 " + "very " * 300 + "long",
        "1" + " " * 1900 + "x",
        "1 " + "a/" * 900,
        "1" + "^" * 1900,
    ],
)
def test_long_text_is_split_fast(text):
    start = time.perf_counter()
    split_unit(as_latex(text))
    assert time.perf_counter() - start < 0.2
