import pytest

from trl_entropy.lab.data.decontaminate import Overlap, find_contamination


LETTERS = "a b c d e f g h i j k l m n o p"
AT_13 = "a b c d e f g h i j k l m"


def test_thirteen_words_in_a_row_are_contamination():
    benchmarks = {"easy": ["x y z " * 5], "hard": ["q r s " * 5, LETTERS]}
    assert find_contamination([f"0 {AT_13} 1"], benchmarks) == [Overlap(0, "hard", 1, AT_13)]


def test_twelve_are_not():
    assert find_contamination(["0 " + AT_13.removesuffix(" m") + " 1"], {"hard": [LETTERS]}) == []
    assert find_contamination(["0 " + AT_13.removesuffix(" m") + " 1"], {"hard": [LETTERS]}, n=12) != []


def test_words_out_of_order_are_not():
    assert find_contamination([" ".join(reversed(LETTERS.split()))], {"hard": [LETTERS]}) == []


def test_case_punctuation_and_white_space_do_not_hide_it():
    text = "What: A, b c! (d) e\nf  $g$ h i-j j k l m?"
    found = find_contamination([text], {"hard": ["a b c d e f g h ij j k l m"]})
    assert [overlap.ngram for overlap in found] == ["a b c d e f g h ij j k l m"]


def test_short_problems_are_looked_for_as_a_whole():
    benchmarks = {"short": ["What is $1+1$?"]}
    texts = ["Solve it. What is $1 + 1$?", "What is $1+1$? Answer in a box.", "What is $1+2$?", "is $1+1$"]
    assert find_contamination(texts, benchmarks) == [Overlap(1, "short", 0, "what is 11")]


def test_longest_shared_run_is_named_and_rows_may_repeat():
    benchmarks = {"short": ["a b c"], "long": [LETTERS]}
    rows = [LETTERS, "z a b c", LETTERS, "z"]
    found = find_contamination(rows, benchmarks)
    assert [(overlap.row, overlap.benchmark) for overlap in found] == [(0, "long"), (1, "short"), (2, "long")]


def test_texts_without_words():
    assert find_contamination(["", "?!"], {"hard": ["", LETTERS]}) == []


def test_wrong_n_is_refused():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        find_contamination(["a"], {}, n=0)
