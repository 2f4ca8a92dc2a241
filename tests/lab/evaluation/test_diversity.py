import math
from collections import Counter

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import distinct, distinct_answers, ngrams, tokenize, vote_entropy
from trl_entropy.measures.groups import votes


def test_distinct_answers_by_hand():
    answers = np.array([[0, 0, 1, -1], [3, 3, 3, 3], [-1, -1, -1, -1], [0, 1, 2, 3]])
    assert distinct_answers(answers).tolist() == [2.0, 1.0, 0.0, 4.0]


def test_vote_entropy_by_hand():
    answers = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, -1, -1]])
    expected = [math.log(2), 0.0, math.log(4) - 0.75 * math.log(3), math.log(2)]
    np.testing.assert_allclose(vote_entropy(answers), expected, atol=1e-12)


def test_vote_without_answers_has_no_entropy():
    assert np.isnan(vote_entropy(np.full((1, 3), -1))).all()


def test_answers_are_measured_as_while_training():
    answers = drawn(num_problems=20).answers
    logged = votes([None if answer < 0 else str(answer) for answer in answers.ravel()], size=8)
    assert distinct_answers(answers).mean() == pytest.approx(logged["groups/distinct_answers"], rel=1e-12)
    assert np.nanmean(vote_entropy(answers)) == pytest.approx(logged["groups/vote_entropy"], rel=1e-12)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x+1 = 2", ["x", "+", "1", "=", "2"]),
        (r"So \boxed{12}.", ["So", "\\", "boxed", "{", "12", "}", "."]),
        (" \n", []),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


def test_ngrams_do_not_cross_responses():
    grams = [Counter(zip(*(array.tolist() for array in pair), strict=True)) for pair in ngrams(["a b a b", "b a", ""])]
    sizes = [{(owner, count) for (_, owner), count in counter.items()} for counter in grams]
    assert [counter.total() for counter in grams] == [6, 4, 2, 1]
    assert sizes[0] == {(0, 2), (1, 1)}  # a, b twice; b, a once
    assert grams[1].total() - len(grams[1]) == 1  # a b twice in the first response
    assert len({gram for gram, _ in grams[1]}) == 2  # a b and b a; the latter also in the second response


def test_distinct_by_hand():
    # unigrams a b c a b: 3 of 5; bigrams ab bc, ab: 2 of 3; trigrams abc: 1 of 1; no 4-grams
    assert distinct(["a b c", "a b"])[:3] == [3 / 5, 2 / 3, 1.0]
    assert math.isnan(distinct(["a b c", "a b"])[3])


def test_distinct_by_sets_of_words():
    texts = drawn(seed=1).texts
    for problem in texts:
        for n, share in enumerate(distinct(problem), start=1):
            grams = [tuple(words[i : i + n]) for words in map(str.split, problem) for i in range(len(words) - n + 1)]
            assert share == pytest.approx(len(set(grams)) / len(grams), rel=1e-15)


def test_equal_responses_share_all_ngrams():
    assert distinct(["a b c d e"] * 4) == [0.25] * 4


def test_empty_responses_have_no_ngrams():
    assert np.isnan(distinct(["", " "])).all()
