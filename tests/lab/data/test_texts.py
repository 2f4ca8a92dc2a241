import pytest

from trl_entropy.lab.data.texts import ngrams, units, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Janet’s  ducks, lay $16$ eggs.", ["janet's", "ducks", "lay", "16", "eggs"]),
        ("$x+1 = 2.5$?", ["x", "+", "1", "=", "2.5"]),
        (r"Find $f'(2)$ and \(5!\)", ["find", "f", "'", "(", "2", ")", "and", "\\", "(", "5", "!", "\\", ")"]),
        ("", []),
    ],
)
def test_units_are_words_numbers_and_signs(text, found):
    assert units(text) == found


def test_units_keep_what_changes_a_formula():
    assert units("$x+1$") != units("$x-1$")
    assert units("2.5") != units("25")
    assert units(r"$\frac{1}{2}$.") == units(r"  \FRAC{1}{2}")


def test_words_have_letters_and_digits_alone():
    assert words("In $2 + 3$, find $x_{12}$!") == ["in", "2", "3", "find", "x12"]


def test_ngrams_of_a_short_sequence_are_itself():
    assert ngrams("abcd", 3) == [("a", "b", "c"), ("b", "c", "d")]
    assert ngrams("ab", 3) == [("a", "b")]
    assert ngrams("", 3) == []
