"""Computer algebra, called here without the processes around it and so on harmless inputs only."""

import logging

import pytest

from trl_entropy.rewards import Verifier
from trl_entropy.rewards.algebra import algebraic_verdict, expression, readable
from trl_entropy.rewards.plain import plain_verdict


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)  # math-verify warns that it has no time limit
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def verifier():
    shared = Verifier(3.0, workers=1)
    yield shared
    shared.close()


# Equal


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        # Numbers
        ("24", "24"),
        ("24", "23+1"),
        ("24", "4!"),
        ("24", r"2^3\cdot 3"),
        ("24", r"2^{3} \times 3"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", "2^{-1}"),
        (r"\frac{1}{2}", r"\frac 1 2"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\sqrt{8}", "8^{1/2}"),
        (r"\sqrt{8}", "2.8284271"),
        (r"11\sqrt2", r"11 \sqrt{2}"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"\frac\pi6", r"\frac{\pi}{6}"),
        (r"\frac{\pi}{6}", r"\frac{2\pi}{12}"),
        (r"1/2^{99}", r"2^{-99}"),
        ("6 - 5i", "-5i+6"),
        ("6 - 5i", "(2-3i)+(4-2i)"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"),
        (r"\binom{5}{2}", "10"),
        (r"\binom{5}{2}", r"\frac{5!}{2!3!}"),
        ("e^2", r"e\cdot e"),
        (r"|{-24}|", "24"),
        # Mixed numbers
        (r"3\frac{1}{2}", "3.5"),
        (r"3\frac{1}{2}", r"\frac{7}{2}"),
        (r"3\frac{1}{2}", "3 1/2"),
        (r"3 \frac{1}{2}", "7/2"),
        # Thousands
        ("10,236", "10236"),
        ("10236", "10,236"),
        ("10{,}236", "10236"),
        (r"10,\!236", "10236"),
        (r"10\,236", "10236"),
        (r"10\ 236", "10236"),
        ("10 236", "10236"),
        ("1 234 567", "1234567"),
        ("10,236", "10235+1"),
        (r"1,000\sqrt{2}", r"1000\sqrt{2}"),
        # Units and percent
        (r"5 \text{ cm}", "5"),
        (r"5 \text{ cm}", r"2+3\text{ cm}"),
        (r"5\sqrt{2}\text{ cm}", r"\sqrt{50}"),
        (r"90^\circ", "90"),
        (r"\frac{\pi}{2}\text{ radians}", r"\frac{\pi}{2}"),
        (r"\$5", "2+3"),
        (r"50\%", "25+25"),
        (r"50\%", r"25+25\%"),
        (r"50\%", r"\frac{1}{4}+\frac{1}{4}"),
        # Polynomials and other terms
        ("2k+2", "2(k+1)"),
        ("2k+2", "k+k+2"),
        ("x^2+2x+1", "(x+1)^2"),
        ("2 t", "2t"),
        (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
        (r"\frac{x}{2}", "0.5x"),
        (r"\sin^2 x+\cos^2 x", "1"),
        # Tuples, intervals, sets, lists
        (r"(3, \pi/2)", r"\left(3, \frac{\pi}{2}\right)"),
        (r"(6,31,-1)", r"(2\cdot 3, 31, -1)"),
        (r"[0,1) \cup (2,3]", r"(2,3] \cup [0,\frac{2}{2})"),
        (r"x \in [-2,7]", "[-2,3+4]"),
        (r"(-\infty,3)", r"(-\infty,\frac{6}{2})"),
        (r"x \le 3", r"3 \ge x"),
        (r"x \le 3", "x <= 3"),
        (r"\{1,2\}", r"\left\{2,1\right\}"),
        ("1,-2", "-2, 1"),
        ("1,-2", r"-2 \text{ and } 1"),
        ("1,-2", "x=1, x=-2"),
        ("1331 and 1728", "1728, 1331"),
        (r"3 \pm 2 \sqrt{2}", r"3 - 2\sqrt{2}, 3 + 2\sqrt{2}"),
        # Matrices
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 3-2 \\ \frac{4}{2} \end{pmatrix}"),
        # Equations
        ("y = 2x + 3", "y-2x=3"),
        ("y = 2x + 3", "2y=4x+6"),
        ("x=24", "24=x"),
        ("x=24", "24"),
        ("4+20=24", "24"),
        ("24", "x=23+1"),
        ("24", "4+20=24"),
        ("24", "4+20=20+4=24"),
        ("2k+2", "f(k)=2(k+1)"),
        ("24", "m+n=24"),  # names the value
        ("2k+2", "a_1+a_2=2k+2"),
        ("6", "2(3)"),
        ("6", r"(2)(3)"),
    ],
)
def test_equal(gold, answer):
    assert algebraic_verdict(gold, answer) == "correct"


# Not equal


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        # A part of the gold, or a gold that is a part of the answer
        ("2k+2", "2"),
        ("2", "2k+2"),
        ("6 - 5i", "5"),
        ("6 - 5i", "6"),
        (r"(3, \pi/2)", "3"),
        ("3", r"(3, \pi/2)"),
        ("1331 and 1728", "1728"),
        ("1331 and 1728", "1331"),
        ("1728", "1331 and 1728"),
        ("1,-2", "1"),
        ("1", "1,-2"),
        ("1,-2", "1,-2,3"),
        (r"3 \pm 2 \sqrt{2}", r"3 + 2\sqrt{2}"),
        ("2 t", "2"),
        ("2", "2 t"),
        ("10,236", "10"),
        ("10,236", "236"),
        (r"[0,1) \cup (2,3]", "[0,1)"),
        (r"3\frac{1}{2}", r"\frac{3}{2}"),
        # Near
        ("1/2^{99}", "1/2^{98}"),
        ("1/2^{99}", "0"),
        ("2^{99}", "2^{99}+1"),
        (r"\sqrt{2}", "1.41"),
        (r"\sqrt{2}", r"\frac{141421356}{100000000}"),
        (r"\pi", r"\frac{22}{7}"),
        (r"\pi", "3.14"),
        (r"\frac{1}{3}", "0.33"),
        # Other
        ("24", "-24"),
        ("24", "25"),
        ("24", "23+2"),
        ("24", "x"),
        ("6 - 5i", "6 + 5i"),
        ("2k+2", "2n+2"),
        ("x^2+2x+1", "(x-1)^2"),
        ("50", r"25+25\%"),
        (r"5 \text{ cm}", r"6 \text{ cm}"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("(1,2)", "(1,2]"),
        ("(1,2)", "(1,2,3)"),
        ("(1,2)", "12"),
        (r"\{1,2\}", "[1,2]"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        (r"x \le 3", "x < 3"),
        (r"x \le 3", r"x \ge 3"),
        (r"x \le 3", "3"),
        (r"\infty", r"-\infty"),
        (r"\infty", "24"),
        ("24", r"\infty"),
        ("i", "-i"),
        ("(1,i)", "(1,-i)"),
        (r"2\frac{1}{2}", r"2\cdot\frac{1}{2}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "3"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "k+1"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 & 3 & 4 \end{pmatrix}"),
        ("y = 2x + 3", "y=2x+4"),
        ("y = 2x + 3", "x=2y+3"),
        ("y = 2x + 3", "5=2x+3"),
        ("x=24", "x=25"),
        ("x=24", "25"),
        ("x=24", "24=24"),
        ("24", "1=24"),
        ("24", "24=1"),
        ("24", "m+n=25"),
        ("24", "24=m+n"),
        ("24", "m+n=1=24"),
        ("2k+2", "k+1=2k+2"),
        ("5", "2(3)"),
        ("24", "4+21=24"),
        ("24", "4+20=1=24"),
        ("24", "x<24"),
        ("24", r"1 \ne 24"),
        ("24", r"1 \to 24"),
        ("24", r"1 \Rightarrow 24"),
        ("24", r"25 \approx 24"),
        ("24", r"24 \pm 1"),
        ("24", r"25\text{ or }24"),
    ],
)
def test_not_equal(gold, answer):
    assert algebraic_verdict(gold, answer) in ("wrong", "unparsable_answer")


@pytest.mark.parametrize(("answer", "verdict"), [("4+20=24", "correct"), ("1=24", "wrong"), ("23+1=24", "correct")])
def test_every_side_must_equal_the_gold(verifier, answer, verdict):
    assert verifier.verdicts(["24"], [answer]) == [verdict]


@pytest.mark.parametrize(
    "answer",
    [
        "1==24",
        r"1\!=\!24",
        r"1 \equiv 24",
        "1=24,",
        r"1 \, = \, 24",
        "1,000=24",
        "1=24;",
        "{1=24}",
        "1=24, 1=24",
        "1=24 or 1=24",
        "1=24, x=24",
        "1=24 or 24",
        r"\{1=24\}",
        "(1=24)",
        r"1 \doteq 24",
        "1{=}24",
        r"1 \neq 24",
        "24=1=24",
    ],
)
def test_other_signs_of_equality_are_no_way_around(verifier, answer):
    assert verifier.verdicts(["24"], [answer])[0] in ("wrong", "unparsable_answer")


@pytest.mark.parametrize(
    ("gold", "answer", "right"), [("5", ".5=5", False), ("0.5", r".5=\frac{1}{2}", True), ("0.5", ".5=.5", True)]
)
def test_equation_that_starts_with_a_decimal_point(verifier, gold, answer, right):
    assert (verifier.verdicts([gold], [answer]) == ["correct"]) == right


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("12", "1 2"),
        ("12", r"1\ 2"),
        ("12", "1  2"),
        ("12", r"1 \quad 2"),
        ("12", r"1 \, 2"),
        ("31/2", "3 1/2"),
        ("31/2", "3  1/2"),
        ("123", "12, 3"),
        ("12", "1, 2"),
    ],
)
def test_numbers_beside_each_other_are_not_one_number(verifier, gold, answer):
    assert verifier.verdicts([gold], [answer])[0] in ("wrong", "unparsable_answer")


# What cannot be read


@pytest.mark.parametrize(
    "answer",
    ["", "?", "1 2", "24+", "(", ")(", "{", "}{", r"\frac{1}", r"\frac{1}{0}", "^", r"\begin{pmatrix}", "\x00"],
)
def test_unreadable_answer(answer):
    assert algebraic_verdict("24", answer) == "unparsable_answer"
    assert expression(answer) is None


@pytest.mark.parametrize("gold", ["", "?", "1 2", "24+", "(", "{", "}{", r"\frac{1}", r"\frac{1}{0}", "4+20="])
def test_unreadable_gold(gold):
    assert algebraic_verdict(gold, "24") == "unparsable_gold"
    assert algebraic_verdict(gold, "?") == "unparsable_gold"


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("24", "24"),
        (" 24. ", "24"),
        ("10,236", "10236"),
        (r"10,\!236", "10236"),
        ("10 236", "10236"),
        ("(10,236)", "(10,236)"),
        ("1,236,5", "1,236,5"),
        ("3 1/2", r"3\frac{1}{2}"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\dfrac 1 2", r"\frac{1}{2}"),
        (r"\frac\pi 6", r"\frac{\pi}{6}"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("x<=3", r"x\le 3"),
        ("x!=3", r"x\ne 3"),
        (r"\approx 24", "24"),
        ("=24", "24"),
        (r"\left(1, 2\right)", "(1,2)"),
        ("1 2", None),
        ("x_1 2", "x_1 2"),
        ("24}", None),
        ("{24", None),
        (r"\{24\}", r"\{24\}"),
    ],
)
def test_text_is_made_readable(text, latex):
    assert readable(text) == latex


# The two ways to a verdict agree


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("24", "24"),
        ("24", "25"),
        ("24", "24.0"),
        ("24", "-24"),
        ("1,000", "1000"),
        ("1,000", "1001"),
        ("1{,}000", "1,000"),
        ("0.5", r"\frac{1}{2}"),
        ("0.5", "1/3"),
        (r"\frac{1}{2}", ".5"),
        (r"\frac{1}{2}", "2/4"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"\frac{1}{3}", "0.333333"),
        (r"\frac{1}{3}", "0.3333"),
        (r"\frac{1}{3}", r"\frac{333333333}{1000000000}"),
        ("0.0000001", "0.0000002"),
        ("3.14", "3.1400000001"),
        ("3", "3.0000001"),
        ("3", "3.00001"),
        ("50", "50%"),
        ("50", r"50\%"),
        ("50", r"5000\%"),
        ("0.5", r"50\%"),
        (r"50\%", "50"),
        (r"50\%", "0.5"),
        (r"50\%", r"50\%"),
        (r"50\%", r"0.5\%"),
        (r"50\%", "51"),
        ("24", "x=24"),
        ("24", "x=25"),
        ("24", "1=24"),
        ("4+20=24", "24"),
        ("4+20=24", "23"),
        ("1" + "0" * 50, "1" + "0" * 49 + "1"),
    ],
)
def test_plain_and_algebraic_verdicts_agree_on_numbers(gold, answer):
    plain = plain_verdict(gold, answer)
    assert plain in ("correct", "wrong")
    assert algebraic_verdict(gold, answer) == plain


# What math-verify alone does not do


@pytest.mark.parametrize(
    ("gold", "answer"), [(r"\infty", r"\infty"), (r"\infty", r"+\infty"), (r"-\infty", r"-\infty")]
)
def test_infinity_equals_itself(gold, answer):
    assert algebraic_verdict(gold, answer) == "correct"


@pytest.mark.parametrize(("gold", "answer"), [(r"10\%, 20\%", "10, 20"), ("10, 20", r"10\%, 20\%")])
def test_list_of_percentages_is_compared(gold, answer):
    assert algebraic_verdict(gold, answer) in ("correct", "wrong")


@pytest.mark.parametrize(("gold", "answer"), [("k", "2k-k"), ("x", r"\frac{2x}{2}")])
def test_term_that_is_a_letter_equals_it(gold, answer):
    assert algebraic_verdict(gold, answer) == "correct"


@pytest.mark.parametrize(("gold", "answer"), [("2i", "(1+i)^2"), ("-1", "i^2"), ("-1", r"e^{i\pi}")])
def test_powers_of_i_are_computed(gold, answer):
    assert algebraic_verdict(gold, answer) == "correct"
