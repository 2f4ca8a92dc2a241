"""What is decided without computer algebra."""

import time
from fractions import Fraction

import pytest

from trl_entropy.rewards.plain import (
    is_same,
    is_words,
    normalised,
    number,
    plain_verdict,
    sides,
    value_of_gold,
    without_percent,
)


# Typesetting


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("24", "24"),
        (" 24 ", "24"),
        ("24.", "24"),
        ("24 .", "24"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"(3,\,\tfrac{\pi}{2})", r"(3,\frac{\pi}{2})"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"1{,}000", "1,000"),
        (r"1,\!000", "1,000"),
        (r"\text{Friday}", "Friday"),
        (r"\mathrm{m}", "m"),
        (r"\textbf{(C)}", "(C)"),
        (r"\text{\textbf{C}}", "C"),
        (r"x \in [1,2]", r"x\in[1,2]"),
        (r"2 k + 2", "2 k+2"),
        (r"a~b", "a b"),
        (r"\displaystyle 24", "24"),
        (r"\leftarrow", r"\leftarrow"),
        (r"\displaystyled", r"\displaystyled"),
        (r"\\ ", r"\\"),
        (r"\text{Friday", r"\text{Friday"),
        ("", ""),
        ("...", ".."),
    ],
)
def test_text_is_normalised(text, bare):
    assert normalised(text) == bare


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("24", " 24. ", True),
        (r"\frac{1}{2}", r"\tfrac{1}{2}", True),
        (r"\left(1, 2\right)", "(1,2)", True),
        (r"\text{Friday}", "Friday", True),
        ("2k+2", "2k + 2", True),
        ("a b", "ab", False),
        ("12", "1 2", False),
        ("12", "1  2", False),
        ("a b", "a  b", True),
        ("24", "-24", False),
        ("24", "24.0", False),
        ("(1,2)", "(1,2]", False),
        ("x", "X", False),
        ("(1,2)", "(2,1)", False),
    ],
)
def test_texts_are_the_same_but_for_typesetting(gold, answer, same):
    assert is_same(gold, answer) == same


# Words


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        (r"\text{Evelyn}", True),
        (r"\text{no}", True),
        (r"\text{(C)}", True),
        (r"\textbf{C}", True),
        (r"\mathrm{A}", True),
        ("(C)", True),
        ("Friday", True),
        ("Friday.", True),
        ("neither of them", True),
        (r"\text{even, odd}", True),
        ("yes", True),
        ("no", True),
        ("BCA", True),
        ("Tue", True),
        ("2ABC", False),
        ("xy", False),  # a product
        ("C", False),  # or a variable
        ("abc", False),
        ("24", False),
        (r"5 \text{ cents}", False),
        (r"\text{24}", False),
        ("2k+2", False),
        (r"\frac{1}{2}", False),
        (r"\sin x", False),
        ("", False),
    ],
)
def test_words_are_told_from_maths(gold, words):
    assert is_words(gold) == words


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        (r"\text{Evelyn}", "Evelyn", "correct"),
        (r"\text{Evelyn}", "evelyn", "correct"),
        (r"\text{Evelyn}", r"\textbf{ Evelyn }.", "correct"),
        (r"\text{Evelyn}", "Eve", "wrong"),
        (r"\text{Evelyn}", "Evelyn or Joe", "wrong"),
        (r"\text{Evelyn}", "7", "wrong"),
        (r"\text{x-axis}", "x axis", "correct"),
        (r"\text{x-axis}", "y axis", "wrong"),
        (r"\text{(C)}", "C", "correct"),
        (r"\text{(C)}", "(C)", "correct"),
        (r"\text{(C)}", r"\textbf{C}.", "correct"),
        (r"\text{(C)}", "c", "wrong"),
        (r"\text{(C)}", "D", "wrong"),
        (r"\text{(C)}", "24", "wrong"),
        ("(C)", "C:", "correct"),
        ("C", "(C)", "correct"),
        ("C", "(B)", "wrong"),
        ("Friday", "friday.", "correct"),
        ("Friday", "Monday", "wrong"),
        (r"\text{no}", "No", "correct"),
        (r"\text{no}", "yes", "wrong"),
        (r"\text{even}", "odd", "wrong"),
        (r"\text{A and B}", "A  and B", "correct"),
    ],
)
def test_words_are_compared_by_their_letters(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


# Numbers


HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24", 24),
        ("+24", 24),
        ("-24", -24),
        ("024", 24),
        (" 24 ", 24),
        ("24.", 24),
        ("0", 0),
        ("-0", 0),
        ("0.5", HALF),
        (".5", HALF),
        ("-.5", -HALF),
        ("0.50", HALF),
        ("3.14", Fraction(157, 50)),
        ("1,000", 1000),
        ("1{,}000", 1000),
        (r"1,\!000", 1000),
        ("12,345,678.5", Fraction(24691357, 2)),
        ("1/2", HALF),
        ("-1/2", -HALF),
        (r"\frac{1}{2}", HALF),
        (r"-\frac{1}{2}", -HALF),
        (r"\frac{-1}{2}", -HALF),
        (r"-\frac{-1}{2}", HALF),
        (r"\dfrac{1}{2}", HALF),
        (r"\tfrac12", HALF),
        (r"\frac{10}2", 5),
        (r"\frac1{10}", Fraction(1, 10)),
        ("1" * 300, int("1" * 300)),
        ("0." + "1" * 300, Fraction(int("1" * 300), 10**300)),
    ],
)
def test_plain_number_is_read(text, value):
    assert number(text).value == value
    assert number(text).percent is False


@pytest.mark.parametrize(("text", "decimal"), [("24", False), ("24.0", True), (".5", True), (r"\frac{1}{2}", False)])
def test_decimal_is_told_from_an_exact_number(text, decimal):
    assert number(text).decimal is decimal


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "--1",
        "1000,000",
        ",100",
        "1.2.3",
        "1 2",
        "1 000",
        "1/0",
        r"\frac{1}{0}",
        r"\frac10",
        r"\frac{1}",
        "1/2/3",
        "1/-2",
        "2k",
        "x",
        "1e5",
        "1_8",
        r"\sqrt{4}",
        "2^3",
        "5 cm",
        r"\text{5}",
        "1" * 301,
        "9" * 10**5,
        "\u0662\u0664",  # Arabic digits
        "\uff11",
    ],
)
def test_what_is_no_plain_number_is_left_to_computer_algebra(text):
    assert number(text) is None
    assert plain_verdict("24", text) is None


@pytest.mark.parametrize(
    "text", ["50%", r"50\%", r"50 \%", r"50\text{ percent}", "50 percent", "50 pct", r"50\%.", "50.0%", "100/2%"]
)
def test_percent_is_read(text):
    assert number(text).value == 50
    assert number(text).percent is True
    assert without_percent(text)[0].strip() in ("50", "50.0", "100/2")


@pytest.mark.parametrize("text", ["50", "50%x", "% 50", r"50\text{ percentile}", ""])
def test_percent_sign_is_only_one_at_the_end(text):
    assert without_percent(text) == (text, False)


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("24", "24", "correct"),
        ("24", "24.0", "correct"),
        ("24", "25", "wrong"),
        ("24", "-24", "wrong"),
        ("1,000", "1000", "correct"),
        ("1000", "1,000", "correct"),
        ("1000", "1", "wrong"),
        ("0.5", r"\frac{1}{2}", "correct"),
        (r"\frac{1}{2}", ".5", "correct"),
        (r"\frac{1}{2}", "2/4", "correct"),
        (r"\frac{1}{2}", "1/3", "wrong"),
        (r"\frac{1}{2}", "2", "wrong"),
        (r"\frac43", r"\frac{4}{3}", "correct"),
    ],
)
def test_numbers_are_compared_by_value(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        # Without decimals, exactly
        (r"\frac{1}{3}", r"\frac{333333333}{1000000000}", "wrong"),
        ("1" + "0" * 50, "1" + "0" * 49 + "1", "wrong"),
        ("1" + "0" * 50, "1" + "0" * 50, "correct"),
        # With decimals, to 6 places, and to 5 figures where the number is smaller than that
        (r"\frac{1}{3}", "0.3333333", "correct"),
        (r"\frac{1}{3}", "0.333333", "correct"),
        (r"\frac{1}{3}", "0.33333", "wrong"),
        (r"\frac{1}{3}", "0.33", "wrong"),
        ("0.333333", r"\frac{1}{3}", "correct"),
        (r"\frac{2}{3}", "0.666667", "correct"),
        (r"\frac{2}{3}", "0.666666", "wrong"),
        ("3.14", "3.1400000001", "correct"),
        ("3.14", "3.14159", "wrong"),
        ("3", "3.0000001", "wrong"),  # an integer is none of them
        ("3", "3.00001", "wrong"),
        ("0.0000001", "0.0000002", "wrong"),
        ("0.0000001", "0", "wrong"),
        ("0", "0.0000001", "wrong"),
        ("0.0000001", r"\frac{1}{10000000}", "correct"),
        ("123456789.5", "123456789.4", "wrong"),
    ],
)
def test_numbers_are_exact_but_for_the_rounding_of_decimals(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("50", "50", "correct"),
        ("50", "50%", "wrong"),
        ("50", r"50\%", "wrong"),
        ("50", "5000%", "correct"),
        ("0.5", "50%", "correct"),
        (r"\frac{1}{2}", r"50\%", "correct"),
        (r"\frac{1}{2}", "50", "wrong"),
        (r"50\%", "50%", "correct"),
        (r"50\%", "50", "correct"),
        (r"50\%", "0.5", "correct"),
        (r"50\%", r"\frac{1}{2}", "correct"),
        (r"50\%", "50 percent", "correct"),
        (r"50\%", "0.5%", "wrong"),
        (r"50\%", "5000", "wrong"),
        (r"50\%", "51%", "wrong"),
        (r"50\%", "0.05", "wrong"),
    ],
)
def test_percent_of_the_gold_may_be_left_out_but_not_added(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


# Times of day, and bases


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("12:30", "12:30", "correct"),
        ("9:05", "09:05", "correct"),
        ("9:05", "9 : 05", "correct"),
        ("9:05", "9:50", "wrong"),
        ("9:05", "10:05", "wrong"),
        (r"\text{9:05}", "9:05", "correct"),
        ("12:30", "12.5", None),
        ("12:30", "12:3", None),
        ("3:2", "3:2", None),  # a ratio
        ("9:05", "1230", None),
    ],
)
def test_times_of_day_are_compared_by_hour_and_minute(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("52_8", "52_8", "correct"),
        ("52_8", "52_{8}", "correct"),
        ("52_{8}", "42_{10}", "correct"),
        ("52_8", "53_8", "wrong"),
        ("52_8", "52_9", "wrong"),
        ("1010_2", "10_{10}", "correct"),
        ("A1_{16}", "161_{10}", "correct"),
        ("a1_{16}", "A1_{16}", "correct"),
        ("A1_{16}", "B1_{16}", "wrong"),
        ("0052_8", "52_8", "correct"),
        (r"52_{\text{8}}", "52_8", "correct"),
        ("52_8", "58_8", "wrong"),  # no digit of that base
        ("52_8", "52", None),
        ("52_8", "42", None),
    ],
)
def test_numbers_in_a_base_are_compared_by_value(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


# Equations


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("24", "24", ["24"]),
        ("24", "x=24", ["24"]),
        ("24", "x = 24", [" 24"]),
        ("24", "x_1=24", ["24"]),
        ("24", r"x_{1} = f(2) = 24", [" 24"]),
        ("24", r"\theta=24", ["24"]),
        ("24", "4+20=24", ["4+20", "24"]),
        ("24", "1=24", ["1", "24"]),
        ("24", "=24", ["24"]),
        ("24", "24=", ["24"]),
        ("24", "2x=24", ["2x", "24"]),
        ("24", "=", ["="]),
        ("24", "a=b", ["a=b"]),
        ("24", "x<=24", ["x<=24"]),
        ("24", "x!=24", ["x!=24"]),
        ("24", "x=1,y=24", ["1", "24"]),
        ("1,24", "x=1,y=24", ["x=1,y=24"]),
        ("x=24", "y=24", ["y=24"]),
        ("y=2x+3", "y=2x+3", ["y=2x+3"]),
    ],
)
def test_sides_of_an_equation_are_all_but_names(gold, answer, expected):
    assert sides(gold, answer) == expected


@pytest.mark.parametrize(
    ("gold", "value"),
    [
        ("24", "24"),
        ("4+20=24", "24"),
        ("1=2=3", "3"),
        ("x=24", "x=24"),
        (r"4\cdot 6=24", r"4\cdot 6=24"),
        ("y=2x+3", "y=2x+3"),
        ("24=", ""),
        ("3<=4", "3<=4"),
    ],
)
def test_gold_between_numbers_is_its_last_side(gold, value):
    assert value_of_gold(gold) == value


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("24", "x=24", "correct"),
        ("24", "x=25", "wrong"),
        ("24", "24.0=24", "correct"),
        ("24", "1=24", "wrong"),
        ("24", "24=1", "wrong"),
        ("4+20=24", "24", "correct"),
        ("4+20=24", "25", "wrong"),
        ("24", "4+20=24", None),
        ("24", "2x=24", None),
        (r"50\%", "x=0.5", "correct"),
        ("50", r"x=50\%", "wrong"),
    ],
)
def test_every_side_must_equal_the_gold(gold, answer, verdict):
    assert plain_verdict(gold, answer) == verdict


# What is not plain


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2k+2", "2(k+1)"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("24", "4!"),
        ("24", "23+1"),
        ("(1,2)", "(2,1)"),
        ("2k+2", "24"),
        (r"3\frac{1}{2}", "3.5"),
        ("x=24", "24"),
        ("1,2", "2,1"),
        (r"\pi", "3.14"),
    ],
)
def test_rest_is_left_to_computer_algebra(gold, answer):
    assert plain_verdict(gold, answer) is None


def test_run_of_spaces_is_read_fast():
    start = time.perf_counter()
    plain_verdict("24", "1" + " " * 1200 + "1")
    assert time.perf_counter() - start < 0.1
