"""What typed text stands for."""

import time

import pytest

from trl_entropy.rewards.typed import as_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        # Numbers
        ("3e8", "300000000"),
        ("1e-05", "0.00001"),
        ("2.5E+3", "2500"),
        ("-3E-4", "-0.0003"),
        ("1.2345e2", "123.45"),
        (".5e1", "5"),
        ("12.5e-1", "1.25"),
        ("1e99", r"1\cdot 10^{99}"),
        ("6.02e23", "602000000000000000000000"),
        (r"8.404 \times 10^{1}", "84.04"),
        (r"3 \cdot 10^8", "300000000"),
        (r"7/2 \cdot 10^3", r"7/2 \cdot 10^3"),  # 7/2 times 1000
        ("5 million dollars", "5000000 dollars"),
        ("e-5", "e-5"),
        ("6e", "6e"),
        ("2e^3", "2e^3"),
        ("1e5_8", "1e5_8"),
        # Functions and constants
        ("2*pi", r"2\cdot \pi "),
        ("2ip", "2ip"),
        ("sin(x)", r"\sin (x)"),
        ("2sinx", r"2\sin x"),
        ("exp(2)", r"\exp (2)"),
        (r"2sin\theta", r"2\sin \theta"),
        ("asin(1)", r"\arcsin (1)"),
        ("x**2", "x^2"),
        ("sqrt(x+(1))", r"\sqrt{x+(1)}"),
        ("2 sqrt 3", r"2 \sqrt{3}"),
        (r"\sqrt(3)/2", r"\sqrt{3}/2"),
        ("√12", r"\sqrt{12}"),
        ("sqrt(3", "sqrt(3"),
        ("abs(x)", "|x|"),
        ("-infinity", r"-\infty "),
        ("alpha+beta", r"\alpha +\beta "),
        (r"\mathrm{e}^2", "e^2"),
        # Words and LaTeX stay
        ("12 sec", "12 sec"),
        ("pin", "pin"),
        ("log cabin", "log cabin"),
        ("the alternating harmonic series", "the alternating harmonic series"),
        (r"\text{pi}", r"\text{pi}"),
        (r"\sin x", r"\sin x"),
        (r"\frac{\pi}{2}", r"\frac{\pi}{2}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        # Characters and typesetting
        ("１２", "12"),
        ("（1，2）", "(1,2)"),
        ("–5", "-5"),
        ("42。", "42."),
        ("x²", "x^{2}"),
        ("3½", r"3\frac{1}{2}"),
        ("**5**", "5"),
        (r"\bf 5", "5"),
        (r"\mathbf{5}", "5"),
        ("$5", "$5"),
        ("$5$ dollars", "5 dollars"),
        ("", ""),
    ],
)
def test_typed_text_is_read_as_meant(text, latex):
    assert as_latex(text) == latex


@pytest.mark.parametrize(
    "text", ["sqrt(" * 400, "1e5" * 600, "*" * 2000, "$" * 2000, "(" * 2000, "abs(x" * 400, r"\sqrt(" * 300]
)
def test_long_text_is_read_fast(text):
    start = time.perf_counter()
    as_latex(text)
    assert time.perf_counter() - start < 0.5
