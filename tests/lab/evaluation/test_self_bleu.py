import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from trl_entropy.lab.evaluation.metrics import self_bleu


BLEU_4 = BLEU(tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=True)


def by_sacrebleu(texts: list[str]) -> float:
    scores = [BLEU_4.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores) / 100


def test_equal_responses_have_one():
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1.0, rel=1e-12)
    assert self_bleu(["a"] * 3) == 1.0  # also those shorter than four words


def test_responses_that_share_no_word_have_zero():
    assert self_bleu(["a b c d", "e f g h", "i j"]) == 0.0


def test_value_by_hand():
    # a b c d against a b c e: 3/4, 2/3, 1/2 and none of one, which is taken for 0.1; the same the other way round
    assert self_bleu(["a b c d", "a b c e"]) == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** (1 / 4), rel=1e-12)


def test_counts_are_clipped_by_the_response_that_has_most():
    # a a a a: at most two a in another response, so 2/4; bigrams 1/3; no trigram of 2, no 4-gram of 1
    first = (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1) ** (1 / 4)
    second = math.exp(1 - 3 / 2) * 1.0  # a a: all found; the nearest length is 3
    third = (2 / 3 * 1 / 2 * 0.1) ** (1 / 3)  # a a b: b is not found, nor a b, nor a a b
    assert self_bleu(["a a a a", "a a", "a a b"]) == pytest.approx((first + second + third) / 3, rel=1e-12)


@pytest.mark.parametrize("num_responses", [2, 3, 8])
@pytest.mark.parametrize(("words", "longest"), [(3, 12), (6, 30), (50, 20), (5, 4)])
def test_it_is_the_mean_of_sentence_bleu(num_responses, words, longest):
    random = np.random.default_rng(num_responses)
    for _ in range(10):
        sizes = random.integers(1, longest + 1, num_responses)
        texts = [" ".join(f"w{word}" for word in random.integers(0, words, size)) for size in sizes]
        assert self_bleu(texts) == pytest.approx(by_sacrebleu(texts), abs=1e-12)


def test_empty_responses_are_alike():
    assert self_bleu(["", ""]) == 1.0
    assert self_bleu(["", "", "a b"]) == pytest.approx(2 / 3)
    assert self_bleu(["", "a b c d", "a b c d"]) == pytest.approx(2 / 3)


def test_single_response_has_none():
    assert math.isnan(self_bleu(["a b"]))
