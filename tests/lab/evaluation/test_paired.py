import math
from itertools import product

import numpy as np
import pytest
from drawn import drawn

from trl_entropy.lab.evaluation.metrics import scores
from trl_entropy.lab.evaluation.paired import paired_differences, sign_test


def test_sign_test_by_hand():
    assert sign_test(8, 2) == sign_test(2, 8) == 2 * (1 + 10 + 45) / 1024
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (4, 1), (6, 2), (4, 3)])
def test_sign_test_counts_all_signs_at_least_as_uneven(wins, losses):
    number = wins + losses
    uneven = [abs(sum(signs)) >= abs(wins - losses) for signs in product((1, -1), repeat=number)]
    assert sign_test(wins, losses) == sum(uneven) / 2**number


def test_difference_by_hand():
    first = drawn(num_problems=4, num_samples=2, answers=np.array([[0, 1], [1, 1], [0, 0], [0, 1]]))
    second = drawn(num_problems=4, num_samples=2, answers=np.array([[0, 0], [0, 1], [0, 0], [1, 1]]))
    found = paired_differences(first, second)["avg@2"]
    assert found.value == pytest.approx((0.5 + 0.5 + 0 - 0.5) / 4)
    assert (found.wins, found.losses, found.p_value) == (2, 1, 1.0)
    assert found.low < found.value < found.high


def test_differences_are_those_of_the_scores():
    first, second = drawn(seed=1), drawn(seed=2)
    before, after = scores(first), scores(second)
    found = paired_differences(first, second)
    assert list(found) == list(before)
    for name, difference in found.items():
        assert difference.value == pytest.approx(after[name].value - before[name].value, abs=1e-12)
        assert difference.low <= difference.value <= difference.high


def test_same_samples_do_not_differ():
    for difference in paired_differences(drawn(), drawn()).values():
        assert difference[:3] == (0.0, 0.0, 0.0)
        assert difference.wins in (0, None)


def test_sums_in_another_order_are_no_win():
    values = np.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.1, 0.7, 0.2]])
    first = drawn(num_problems=2, num_samples=4, entropies=values)
    second = drawn(num_problems=2, num_samples=4, entropies=values[:, ::-1] * (1 + 1e-15))
    assert paired_differences(first, second)["response_entropy"].wins == 0


def test_what_both_find_hard_cancels():
    hard = np.arange(40)[:, None] >= 20
    first = drawn(num_problems=40, answers=np.where(hard, 1, 0) * np.ones((40, 8), dtype=int))
    answers = first.answers.copy()
    answers[:, 0] = 0  # one more right sample of the hard ones
    second = drawn(num_problems=40, answers=answers)
    found = paired_differences(first, second)["avg@8"]
    alone = scores(first)["avg@8"].stderr
    assert found.value == pytest.approx(1 / 16)
    assert found.high - found.low < 0.3 * 2 * 1.96 * alone
    assert (found.wins, found.losses, found.p_value) == (20, 0, 2 / 2**20)


def test_interval_is_that_of_the_differences():
    first, second = drawn(num_problems=300, seed=1), drawn(num_problems=300, seed=2)
    found = paired_differences(first, second, resamples=4000)["avg@8"]
    gains = second.correct.mean(1) - first.correct.mean(1)
    half = 1.96 * gains.std() / math.sqrt(300)
    assert (found.low, found.high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.15 * half)


def test_metrics_of_all_problems_together_have_no_sign_test():
    found = paired_differences(drawn(seed=1), drawn(seed=2))
    without = {name for name, difference in found.items() if difference.wins is None}
    assert without == {"ece_logprob", "auroc_logprob", "ece_vote", "auroc_vote"}
    assert all(math.isnan(found[name].p_value) for name in without)


def test_single_problem_has_no_interval():
    found = paired_differences(drawn(num_problems=1, seed=1), drawn(num_problems=1, seed=2))["response_entropy"]
    assert math.isnan(found.low)
    assert found.wins + found.losses == 1


@pytest.mark.parametrize("shape", [(5, 8), (6, 4)])
def test_other_problems_or_numbers_of_samples_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"both need the same problems with the same number of samples; got .*\(6, 8\)"
    ):
        paired_differences(drawn(), drawn(*shape))
