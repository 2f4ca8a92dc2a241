from itertools import combinations

import pytest

from trl_entropy.measures import pass_at_k


def test_values_by_hand():
    # two of four correct: 1 - C(2, 2) / C(4, 2) = 1 - 1/6 for k = 2; for k = 3 a wrong trio does not exist
    assert pass_at_k(4, 2, 1) == 0.5
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6, rel=1e-15)
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 4, 1) == 1.0


@pytest.mark.parametrize("num_correct", range(7))
@pytest.mark.parametrize("k", range(1, 7))
def test_it_is_the_share_of_subsets_with_a_correct_sample(num_correct, k):
    subsets = list(combinations([True] * num_correct + [False] * (6 - num_correct), k))
    assert pass_at_k(6, num_correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be between 1 and num_samples=4, got {k}"):
        pass_at_k(4, 2, k)


@pytest.mark.parametrize("num_correct", [-1, 5])
def test_number_of_correct_samples_out_of_range_is_refused(num_correct):
    with pytest.raises(ValueError, match=f"num_correct must be between 0 and num_samples=4, got {num_correct}"):
        pass_at_k(4, num_correct, 1)
