"""Which part of a text is the answer."""

import pytest

from trl_entropy.rewards.answers import (
    SOURCES,
    TAIL,
    after_hashes,
    all_boxed,
    announced,
    answer_in,
    closing_brace,
    gold_in,
    last_boxed,
    last_latex,
    last_maths,
    last_number,
)


MEGABYTE = 2**20


# Braces


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("24}", 0, 2),
        ("{24}", 1, 3),
        ("a{b}c}", 0, 5),
        ("{{}}}", 0, 4),
        (r"\}}", 0, 2),
        (r"\{}", 0, 2),
        (r"\\}", 0, 2),
        (r"\\\}}", 0, 4),
        ("}", 0, 0),
        ("", 0, None),
        ("24", 0, None),
        ("{24}", 0, None),
        (r"\}", 0, None),
        ("{{}", 0, None),
        ("a\n{\n}\n}", 0, 6),
        ("24}\\", 0, 2),
        ("24\\", 0, None),
    ],
)
def test_brace_closes_where_it_is_balanced_by_one_that_is_not_escaped(text, start, end):
    assert closing_brace(text, start) == end


# The last box


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{24}", "24"),
        (r"\boxed{ 24 }", " 24 "),
        (r"\boxed {24}", "24"),
        ("\\boxed\n{24}", "24"),
        (r"\fbox{24}", "24"),
        (r"$\boxed{24}$ and more", "24"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1\right\}}", r"\left\{1\right\}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \fbox{2}", "2"),
        (r"\fbox{1} then \boxed{2}", "2"),
        (r"\boxed{\boxed{2}}", "2"),
        (r"\boxed{}", ""),
        (r"\boxed{24", None),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{1} then \boxed{2", None),
        (r"\boxed{1} then \boxed 2", None),
        (r"\boxed{1} then \boxed", None),
        (r"\boxed{1} then \boxedtext{2}", None),
        (r"\boxed{24\}", None),
        (r"boxed{24}", None),
        ("24", None),
        ("", None),
    ],
)
def test_last_box_is_taken_whole_or_not_at_all(text, answer):
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{24}", "24"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"$\boxed{1}$ or $\boxed{2}$.", "1, 2"),
        (r"\(\boxed{1}\) and \(\boxed{2}\)", "1, 2"),
        (r"\[\boxed{1} \quad \text{or} \quad \boxed{2}\]", "1, 2"),
        (r"\boxed{1} \text{ and } \boxed{2}", "1, 2"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        (r"\boxed{1}; \fbox{2}", "1, 2"),
        (r"\boxed{1} but not \boxed{2}", "2"),
        (r"\boxed{0} no, \boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{0} and \boxed{1}. Rather: \boxed{2}", "2"),
        (r"\boxed{1} + \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{24} are the sheep and the goats", "24"),
        ("24", None),
        ("", None),
        (r"\boxed{24}" + " " * TAIL, "24"),
        (r"\boxed{1}" + " " * TAIL + r"\boxed{2}", "2"),
        (r"\boxed{1} \text{ for part (a) and } \boxed{2}", "1, 2"),
        ("x" * TAIL + r"\boxed{24}", "24"),
    ],
)
def test_boxes_that_only_connectives_separate_are_one_list(text, answer):
    assert all_boxed(text) == answer


# Fall-backs


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 24.", "24"),
        ("The answer is 24", "24"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is 3.5. Good.", "3.5"),
        ("Answer: 24", "24"),
        ("**Answer:** 24", "24"),
        ("The ANSWER IS: **24**", "24"),
        ("answer = 24", "24"),
        ("The answer is 23. No, the answer is 24.", "24"),
        ("The answer is $2k+2$, of course.", "2k+2"),
        (r"The answer is \(2k+2\). Yes.", "2k+2"),
        ("The answer is $$24$$", "24"),
        (r"The answer is \[24\]", "24"),
        ("The answer is\n24\nmore", "24"),
        ("Q: What?\nA: 24\n", "24"),
        ("A:24", "24"),
        ("The answer is 24 sheep\nand so on", "24 sheep"),
        ("The answer is: the largest $n$ is 24.", "24"),
        ("The answer is that $2k+2$ sheep are left.", "2k+2"),
        ("The answer is Friday", "Friday"),
        ("The answer is a Friday", "a Friday"),
        ("The final answer is:", None),
        ("The answer is 24. The answer is", None),
        ("24", None),
        ("The USA: 24", None),
        ("The answers are 24", None),
        ("", None),
        ("The answer is 24." + "x" * TAIL, None),
    ],
)
def test_what_follows_the_last_announcement_is_the_answer(text, answer):
    assert announced(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 24", "24"),
        ("####24", "24"),
        ("1 + 1\n#### 24\n", "24"),
        ("#### 24\nmore", "24"),
        ("####\n24", "24"),
        ("#### 1\n#### 2", "2"),
        ("#### 1,000 sheep", "1,000 sheep"),
        ("##### 24", "24"),
        ("### 24", None),
        ("####", None),
        ("#### 24\n####", None),
        ("24", None),
        ("", None),
        ("#### 24" + "\n" * TAIL, None),
    ],
)
def test_line_after_the_last_hashes_is_the_answer(text, answer):
    assert after_hashes(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("$24$", "24"),
        ("$ 24 $", "24"),
        ("$1$ and $2$", "2"),
        ("$$1$$ and $$2$$ then", "2"),
        (r"\(1\) and \(2\)", "2"),
        (r"\[1\] and \[2\]", "2"),
        (r"$1$ and \(2\)", "2"),
        (r"\(1\) and $2$", "2"),
        ("$a\n+b$", "a\n+b"),
        (r"It is \$5 and $\$6$", r"\$6"),
        (r"It costs \$5 or \$6", None),
        ("24", None),
        ("$24", None),
        ("$$", None),
        ("", None),
    ],
)
def test_last_formula_is_the_answer(text, answer):
    assert last_latex(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("24", "24"),
        ("1, 2", "2"),
        ("1 and -2.", "-2"),
        ("3.14", "3.14"),
        ("It is 3.", "3"),
        (".5", ".5"),
        ("-.5", "-.5"),
        ("1/2", "1/2"),
        ("1,000", "1,000"),
        ("1,000, at most", "1,000"),
        ("1,000.5 exactly", "1,000.5"),
        ("x2y", "2"),
        ("1 000", "1 000"),
        ("in 12 345 678 ways", "12 345 678"),
        ("12 34", "34"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"so -\dfrac{1}{2}.", r"-\dfrac{1}{2}"),
        (r"\frac{x}{2}", "2"),
        ("none", None),
        ("-", None),
        ("", None),
        ("24" + "x" * TAIL, None),
    ],
)
def test_last_number_is_the_answer(text, answer):
    assert last_number(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("24", "24"),
        ("2k+2", "2k+2"),
        (r"\frac{x}{2}", r"\frac{x}{2}"),
        ("W(x)=1", "W(x)=1"),
        ("It is 24", "24"),
        ("It is $2k+2$", "2k+2"),
        ("It is $2k+2$, or 4 if k is 1.", "1"),
        ("It is 4, so $2k+2$.", "2k+2"),
        ("$1$ and $2$", "2"),
        ("答案是24", "24"),
        ("no number", None),
        ("", None),
        ("24" + "\n" * TAIL, None),
        ("24 is it" + "x" * TAIL, None),
    ],
)
def test_last_formula_or_a_number_after_it_or_all_without_words_is_the_answer(text, answer):
    assert last_maths(text) == answer


# Several sources


@pytest.mark.parametrize(
    ("sources", "answer"),
    [
        (["boxed"], "1"),
        (["hashes"], "5"),
        (["announced"], "3"),
        (["last_latex"], "4"),
        (["last_number"], "6"),
        (["last_maths"], "6"),
        (["boxed", "hashes"], "1"),
        (["hashes", "boxed"], "5"),
        (["all_boxed", "last_number"], "1"),
    ],
)
def test_sources_are_asked_in_order(sources, answer):
    text = "\\boxed{1} is one, the answer is 3. Then $4$.\n#### 5\nand 6"
    assert answer_in(text, sources) == answer


@pytest.mark.parametrize("text", [r"\boxed{} so 24", r"\boxed{ } so 24", r"\boxed{7 so 24", "so 24"])
def test_next_source_is_asked_where_one_finds_nothing(text):
    assert answer_in(text, ["boxed", "announced", "hashes", "last_number"]) == "24"


def test_only_the_box_is_asked_by_default():
    assert answer_in("The answer is $24$.\n#### 24") is None
    assert answer_in(r"\boxed{24}") == "24"


def test_earlier_box_is_not_the_answer_to_a_broken_one():
    assert answer_in(r"\boxed{24} and \boxed{25", ["boxed", "all_boxed"]) is None


# Solutions


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("24", "24"),
        (" 24\n", "24"),
        (r"\frac{1}{3}", r"\frac{1}{3}"),
        ("2k+2", "2k+2"),
        (r"\boxed{24}", "24"),
        (r"\fbox{24}", "24"),
        (r"So it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"First \boxed{1}. Then rather \boxed{2}.", "2"),
        (r"\boxed{24", ""),
        ("#### 24", "24"),
        ("1+1=<<1+1=2>>2\n#### 1,000", "1,000"),
        ("#### 1\n#### 2", "2"),
        ("only words ####", ""),
        (r"#### \boxed{24}", "24"),
        ("#### $24$", "24"),
        ("$24$", "24"),
        ("$$24$$", "24"),
        (r"\(24\)", "24"),
        (r"\[24\]", "24"),
        ("$1$, $2$", "1, 2"),
        ("$1$ and $2$", "1, 2"),
        ("$1$, $2$, or $3$.", "1, 2, 3"),
        (r"$1$ \text{and} $2$", "1, 2"),
        ("$x$ equals $2$", "2"),
        ("so $x$ is $2$, as promised", "2"),
        (r"$x=1$ sheep and $2$ goats", "$x=1$ sheep and $2$ goats"),
        ("maximum $(2,2)$; saddle $(0,0)$", "maximum $(2,2)$; saddle $(0,0)$"),
        ("$G$ is not invertible", "$G$ is not invertible"),
        ("0 and $(8,-10,2)$", "0 and $(8,-10,2)$"),
        ("rising on $(0,1)$", "(0,1)"),
        ("every integer except $5$", "every integer except $5$"),
        ("The maximum is $3$ and the minimum is $1$", "The maximum is $3$ and the minimum is $1$"),
        ("Take $a$. " * 40 + "There are $5$ ways.", "5"),
        (r"\$5", r"\$5"),
        (r"$\$5$", r"\$5"),
        ("$", ""),
        ("$$", ""),
        (" $ $ ", ""),
        ("", ""),
        ("   ", ""),
        ("$5", "$5"),
    ],
)
def test_solution_is_bare_boxed_in_dollars_or_after_hashes(solution, gold):
    assert gold_in(solution) == gold


# Long texts


LONG = [
    "x",
    "{",
    "}",
    "\\",
    "$",
    "$$",
    "1",
    "1,",
    " ",
    "\n",
    "####",
    r"\boxed{",
    r"\boxed{1}",
    "answer is",
    "A:",
    r"\(",
]


@pytest.mark.parametrize("source", sorted(SOURCES))
@pytest.mark.parametrize("text", LONG)
def test_long_text_is_read(source, text):
    long = text * (MEGABYTE // len(text))
    found = answer_in(long, [source])
    assert found is None or found in long or source == "all_boxed"
    assert isinstance(gold_in(long), str)


def test_box_at_the_end_of_a_long_text_is_found():
    long = "because " * (MEGABYTE // 8)
    for source in ("boxed", "all_boxed"):
        assert answer_in(long + r"\boxed{24}", [source]) == "24"
    assert answer_in(long + "answer is 24", ["announced"]) == "24"
    assert answer_in(long + "#### 24", ["hashes"]) == "24"
    assert answer_in(long + "$24$", ["last_latex"]) == "24"
    assert answer_in(long + "24", ["last_number"]) == "24"
    assert gold_in(long + r"\boxed{24}") == "24"


def test_box_at_the_start_of_a_long_text_is_found():
    assert answer_in(r"\boxed{24}" + "x" * MEGABYTE) == "24"
