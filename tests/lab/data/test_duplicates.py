import random
from collections import Counter

import pytest

from trl_entropy.lab.data.deduplicate import Duplicate, find_duplicates
from trl_entropy.lab.data.texts import ngrams, units


def test_equal_words_are_a_duplicate_of_the_first():
    texts = ["Find $x+1$.", "find  x+1", "Find $x-1$.", "FIND x+1 ?"]
    assert find_duplicates(texts) == [Duplicate(1, 0, 1.0), Duplicate(3, 0, 1.0)]


def test_near_texts_have_the_similarity_of_their_ngrams():
    texts = ["a b c d e f", "a b c d e g", "u v w x y z"]
    # 3-grams: abc bcd cde def, and deg for def: 3 of 5
    assert find_duplicates(texts, threshold=0.6) == [Duplicate(1, 0, pytest.approx(0.6))]
    assert find_duplicates(texts, threshold=0.61) == []


def test_ngrams_count_as_often_as_they_occur():
    # n = 1: {a, a, b} and {a, b, b} share a and b, and have 4 together
    assert find_duplicates(["a a b", "a b b"], 0.5, n=1) == [Duplicate(1, 0, pytest.approx(0.5))]
    assert find_duplicates(["a a b", "a b b"], 0.51, n=1) == []


def test_duplicates_name_a_row_that_stays():
    texts = ["a b c d e f", "a b c d e g", "A b c d e g."]
    found = find_duplicates(texts, threshold=0.6)
    assert [(duplicate.row, duplicate.of) for duplicate in found] == [(1, 0), (2, 0)]


def test_short_texts_are_one_ngram():
    assert find_duplicates(["a b", "a c", "a B"], threshold=0.9) == [Duplicate(2, 0, 1.0)]


def similarity(one: str, other: str, n: int) -> float:
    first, second = Counter(ngrams(units(one), n)), Counter(ngrams(units(other), n))
    return (first & second).total() / (first | second).total()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("n", [1, 2])
def test_all_pairs_are_found(threshold, n):
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcd", k=rng.randint(3, 7))) for _ in range(120)]
    kept, removed = [], []
    for row, text in enumerate(texts):
        if any(similarity(text, texts[other], n) >= threshold for other in kept):
            removed.append(row)
        else:
            kept.append(row)
    found = find_duplicates(texts, threshold, n)
    assert [duplicate.row for duplicate in found] == removed
    assert 0 < len(removed) < 120
    for row, of, likeness in found:
        assert of in kept
        assert likeness == pytest.approx(similarity(texts[row], texts[of], n))
        assert likeness >= threshold


@pytest.mark.parametrize(
    ("wrong", "line"),
    [({"threshold": 0}, r"threshold must be a similarity in \(0, 1\], got 0"), ({"n": 0}, "n must be at least 1")],
)
def test_wrong_values_are_refused(wrong, line):
    with pytest.raises(ValueError, match=line):
        find_duplicates(["a"], **wrong)
