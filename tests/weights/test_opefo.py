import math

import pytest
import torch
from toy import chosen_logps, distance, entropy_of_table, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.weights import Opefo


def tokens(changes: list[float]) -> Tokens:
    """Tokens of probability 1 and entropy 1, so that S = 1 and the change is -A."""
    zeros = torch.zeros(1, len(changes))
    return Tokens(zeros, zeros, zeros + 1, -torch.tensor([changes]), zeros == 0)


@pytest.mark.parametrize(
    ("strength", "expected"),
    [(1.0, [[1.5, 0.5, 0.5, 1.0]]), (0.5, [[1.25, 0.75, 0.75, 1.0]]), (0.0, [[1.0, 1.0, 1.0, 1.0]])],
)
def test_weights_by_hand(strength, expected):
    # up 1, down 3: lambda = (3 - 1) / 4
    assert Opefo(strength)(tokens([1.0, -1.0, -2.0, 0.0])).tolist() == expected


def test_more_that_raises_entropy_is_balanced_too():
    assert Opefo()(tokens([3.0, -1.0])).tolist() == [[0.5, 1.5]]


@pytest.mark.parametrize(("changes", "expected"), [([-1.0, -2.0], 0.0), ([1.0, 2.0], 0.0), ([0.0, 0.0], 1.0)])
def test_one_side_alone_is_dropped_and_nothing_is_left_as_it_is(changes, expected):
    assert Opefo()(tokens(changes)).tolist() == [[expected, expected]]


def test_sums_are_those_of_the_step():
    first, second = tokens([1.0, -1.0]), tokens([-2.0])
    pool = Pool([first, second])
    assert Opefo()(first).tolist() == [[1.0, 1.0]]
    assert [Opefo()(part.with_pool(pool)).tolist() for part in (first, second)] == [[[1.5, 0.5]], [[0.5]]]


def test_weighted_changes_add_up_to_nothing_and_the_gradient_is_scaled_by_side():
    given, logits = table_case(scale=2.0)
    del given["old_per_token_logps"]  # on-policy
    mask = given["completion_mask"].bool()
    probabilities = chosen_logps(logits, given["completion_ids"]).exp()
    change = -given["advantages"].unsqueeze(1) * probabilities * (entropy_of_table(logits) + probabilities.log())
    change = torch.where(mask, change, 0.0)
    up, down = change[change > 0].sum(), -change[change < 0].sum()
    balance = (down - up) / (down + up)
    weights = 1 + balance * change.sign()
    assert (weights * change).sum().abs() < 1e-12
    assert abs(balance) > 0.04
    plain = table_gradient(table(logits, plain=True), given)
    found = table_gradient(table(logits, token_weights={"opefo": {}}), given)
    assert distance(found, weights.unsqueeze(-1) * plain) < 1e-6  # float32 changes


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_value_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="strength must be a number >= 0 and <= 1, got"):
        Opefo(value)
