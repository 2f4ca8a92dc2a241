from math import exp, log

import numpy as np
import pytest

from trl_entropy.lab.data.semantic_entropy import semantic_entropy


def test_by_hand():
    classes = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 1]])
    quarter = -0.25 * log(0.25) - 0.75 * log(0.75)
    assert semantic_entropy(classes) == pytest.approx([0, log(2), log(4), quarter], abs=1e-12)


def test_samples_without_an_answer_say_something_of_their_own():
    classes = np.array([[-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, 0]])
    half = -0.5 * log(0.5) - 2 * 0.25 * log(0.25)
    assert semantic_entropy(classes) == pytest.approx([log(4), half, half], abs=1e-12)


def test_likelier_answers_count_more():
    classes = np.array([[0, 0, 1]])
    logprobs = np.log([[0.2, 0.3, 0.1]])
    # 0.5 against 0.1
    expected = -5 / 6 * log(5 / 6) - 1 / 6 * log(1 / 6)
    assert semantic_entropy(classes, logprobs) == pytest.approx([expected], abs=1e-12)
    # a factor that all share does not matter
    assert semantic_entropy(classes, logprobs - 3) == pytest.approx([expected], abs=1e-12)


def test_equal_log_probs_are_frequencies():
    classes = np.random.default_rng(0).integers(-1, 3, (20, 8))
    assert semantic_entropy(classes, np.full((20, 8), -2.5)) == pytest.approx(semantic_entropy(classes), abs=1e-12)


def test_whole_responses_do_not_underflow_and_the_likeliest_decides():
    classes, logprobs = np.array([[0, 1, 1]]), np.array([[-2000.0, -2040.0, -2050.0]])
    rest = exp(-40) + exp(-50)
    expected = rest * 40 + rest  # to first order in the little that is left for the second class
    assert semantic_entropy(classes, logprobs) == pytest.approx([expected], rel=1e-3)
    assert semantic_entropy(classes, logprobs / 1000)[0] > 0.6


def test_is_within_its_bounds():
    random = np.random.default_rng(1)
    classes, logprobs = random.integers(-1, 8, (50, 8)), -random.random((50, 8)) * 5
    for found in (semantic_entropy(classes), semantic_entropy(classes, logprobs)):
        assert ((found >= 0) & (found <= log(8) + 1e-12)).all()


def test_other_shape_is_refused():
    with pytest.raises(ValueError, match=r"have the shape of classes, \(1, 2\), got \(2,\)"):
        semantic_entropy(np.array([[0, 1]]), np.array([0.0, 0.0]))
