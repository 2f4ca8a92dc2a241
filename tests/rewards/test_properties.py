"""What holds for any gold, any wrapping and any text around it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_entropy.rewards import MathVerifyReward, Verifier
from trl_entropy.rewards.answers import SOURCES, answer_in, gold_in


DEADLINE = 5.0  # seconds: enough on a machine that is busy
PROFILE = settings(
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def one():
    shared = Verifier(DEADLINE, workers=1)
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def two():
    shared = Verifier(DEADLINE, workers=2)
    yield shared
    shared.close()


# Golds


small = st.integers(2, 99)
signs = st.sampled_from(["", "-"])
letters = st.sampled_from("abknxyz")
integers = st.integers(-(10**12), 10**12).map(str)
thousands = st.integers(1000, 10**12).map("{:,}".format)
decimals = st.builds("{}{}.{}".format, signs, st.integers(0, 999), st.integers(1, 9999))
slashes = st.builds("{}{}/{}".format, signs, small, small)
fractions = st.builds(r"{}\frac{{{}}}{{{}}}".format, signs, small, small)
numbers = st.one_of(integers, thousands, decimals, slashes)
values = st.one_of(
    integers,
    fractions,
    st.builds(r"{}\sqrt{{{}}}".format, small, small),
    st.builds(r"\frac{{{}\pi}}{{{}}}".format, small, small),
    st.builds(r"\frac{{{}+\sqrt{{{}}}}}{{{}}}".format, small, small, small),
)
expressions = st.one_of(
    st.builds("{}{}^2+{}".format, small, letters, small),
    st.builds("{0}{1}^{{{2}}}-{3}{1}".format, small, letters, small, small),
    st.builds(r"\frac{{{}{}}}{{{}}}".format, small, letters, small),
    st.builds(r"{}\sqrt{{{}+{}}}".format, small, letters, small),
    st.builds("{} - {}i".format, small, small),
)
tuples = st.lists(st.one_of(values, expressions), min_size=2, max_size=4).map(lambda parts: f"({', '.join(parts)})")
golds = st.one_of(numbers, values, expressions, tuples)


# Wrappings: the same answer written in another way


def sized(gold: str) -> str:
    return gold.replace("(", r"\left(").replace(")", r"\right)")


written = st.sampled_from(
    [
        lambda gold: gold,
        lambda gold: f"${gold}$",
        lambda gold: f"  {gold} ",
        lambda gold: f"\n{gold}\n",
        lambda gold: f"{gold}.",
        lambda gold: rf"\displaystyle {gold}",
        lambda gold: rf"\ {gold}\,",
        lambda gold: gold.replace(r"\frac", r"\dfrac"),
        lambda gold: gold.replace(r"\frac", r"\tfrac"),
        lambda gold: rf"\left({gold}\right)" if "," not in gold else gold,
        sized,
        lambda gold: gold.replace("+", " + ").replace("-", r" - ").strip(),
        lambda gold: gold.replace(",", ", ") if gold[0] == "(" else gold.replace(",", "{,}"),
    ]
)
solutions = st.sampled_from(
    [
        "{}".format,
        " {} ".format,
        "${}$".format,
        "$${}$$".format,
        r"\({}\)".format,
        r"\boxed{{{}}}".format,
        r"Thus $x$ is $\boxed{{{}}}$, as asked.".format,
        r"First $\boxed{{0}}$ was tried. Then it was $\boxed{{{}}}$.".format,
        "#### {}".format,
        "1 + 2 = 3, and so\n#### {}\n".format,
    ]
)
IN_TEXT = {
    "boxed": [r"\boxed{{{}}}", r"So $x = 3$ and $$\boxed{{{}}}$$.", r"\boxed{{0}} no, \fbox {{{}}} it is"],
    "all_boxed": [r"\boxed{{{}}}", r"Of \boxed{{0}} this is half: \boxed{{{}}}."],
    "announced": [
        "The answer is ${}$.",
        "Final answer: {}",
        "the ANSWER is: **{}**",
        "Q: 1?\nA: {}\n",
        "answer = {}.",
    ],
    "hashes": ["1 + 1\n#### {}", "#### 0\n#### {}\nmore"],
    "last_latex": ["$0$, so ${}$.", r"\(0\) so \({}\) it is", "$$0$$ $${}$$", "\\[0\\]\n\\[ {} \\]"],
    "last_maths": ["${}$", r"It is $0$, so \({}\)", "As 1 + 1 = 2, $${}$$ is it."],
    "last_number": ["It is {}", "First 0, then {}."],
}


@PROFILE
@given(gold=golds, write=written, solve=solutions)
def test_gold_in_any_wrapping_equals_itself(two, gold, write, solve):
    wanted, answer = gold_in(solve(gold)), answer_in(rf"It is $\boxed{{{write(gold)}}}$, as 1 + 1 = 2.")
    assert two.verdicts([wanted], [answer]) == ["correct"]


@PROFILE
@given(data=st.data(), solve=solutions)
def test_gold_is_found_in_every_source(two, data, solve):
    source = data.draw(st.sampled_from(sorted(SOURCES)))
    gold = data.draw(numbers if source == "last_number" else golds)
    text = data.draw(st.sampled_from(IN_TEXT[source])).format(gold)
    assert two.verdicts([gold_in(solve(gold))], [answer_in(text, [source])]) == ["correct"]


@PROFILE
@given(gold=golds)
def test_gold_is_read(two, gold):
    assert two.self_check([gold]) == ["correct"]


@PROFILE
@given(gold=st.one_of(numbers, values), other=st.one_of(numbers, values), more=small)
def test_gold_and_a_number_more_is_wrong_and_equality_goes_both_ways(two, gold, other, more):
    assert two.verdicts([gold], [f"{gold}+{more}"]) == ["wrong"]
    assert two.verdicts([gold], [other]) == two.verdicts([other], [gold])


# Text around the answer


fragments = st.sampled_from(
    [
        "\\boxed{",
        r"\boxed{1}",
        r"\boxed",
        r"\fbox{",
        "{",
        "}",
        "$",
        "$$",
        r"\(",
        r"\]",
        "\\",
        "####",
        "answer is",
        "A:",
    ]
    + [r"\frac{1}{2}", r"\frac", r"\sqrt{", "^", "_", "%", r"\%", "=", "<", ",", ".", " ", "\n", "(", "]", r"\left("]
    + [
        r"\text{",
        r"\text{and}",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        "&",
        r"\\",
        "1",
        "24",
        "x",
        "-",
        "+",
        "and",
        ";",
    ]
    + [r"\pm", r"\in", r"\cup", r"\infty", r"\circ", r"\pi", "/", ":", "i", "0", "1,000", "e", "!", "|", "~", "\x00"]
)
noise = st.one_of(st.text(st.characters(), max_size=60), st.lists(fragments, max_size=14).map("".join))


@PROFILE
@given(before=noise, gold=golds, right=st.booleans())
def test_text_before_the_box_changes_nothing(two, before, gold, right):
    box = rf"\boxed{{{gold if right else gold + '+1'}}}"
    answer = answer_in(before + box)
    assert answer == answer_in(box)
    assert (two.verdicts([gold], [answer]) == ["correct"]) == right


@PROFILE
@given(texts=st.lists(noise, min_size=1, max_size=6), data=st.data())
def test_order_and_number_of_processes_change_nothing(one, two, texts, data):
    wanted = data.draw(st.lists(golds, min_size=len(texts), max_size=len(texts)))
    answers = [*wanted[1:], *texts]
    wanted = [*wanted[1:], *wanted]
    order = data.draw(st.permutations(range(len(wanted))))
    verdicts = one.verdicts(wanted, answers)
    shuffled = two.verdicts([wanted[i] for i in order], [answers[i] for i in order])
    assert shuffled == [verdicts[i] for i in order]


# Any input


@PROFILE
@given(completion=noise, solution=noise, source=st.sampled_from(sorted(SOURCES)))
def test_no_text_raises(completion, solution, source):
    reward = MathVerifyReward(answer_from=[source, "boxed"], deadline=DEADLINE, workers=2)
    rewards = reward([completion, rf"\boxed{{{completion}}}"], [solution, "24"])
    assert set(rewards) <= {0.0, 1.0, None}
    assert rewards[1] is not None


@PROFILE
@given(answer=st.lists(fragments, max_size=10).map("".join), gold=golds)
def test_no_answer_of_latex_raises(two, answer, gold):
    assert two.verdicts([gold], [answer])[0] in ("correct", "wrong", "no_answer", "unparsable_answer", "timeout")


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    MathVerifyReward(deadline=DEADLINE, workers=2).verifier.close()
