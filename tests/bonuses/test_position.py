import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import Position


def tokens(advantages: list[float], mask: list[int], step: int = 0) -> Tokens:
    mask = torch.tensor([mask] * len(advantages), dtype=torch.bool)
    values = torch.tensor(advantages).unsqueeze(1).expand(mask.shape)
    zeros = torch.zeros(mask.shape)
    return Tokens(zeros, zeros, zeros, values, mask, step=step)


# Of four tokens rho is 0, 1/4, 1/2, 3/4; with k = 4 log 3 the exponents are -2 log 3, -log 3, 0, log 3, and the
# logistic function of them 1/10, 1/4, 1/2, 3/4
K = 4 * math.log(3)


def near(actual: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=0)


def test_bonus_by_hand():
    # alpha = 2 gives 0.2, 0.5, 1, 1.5, but at most |A| / 2; the sign is that of the advantage
    bonus = Position(alpha=2.0, steepness=K)(tokens([10.0, -1.2, 0.0], [1, 1, 1, 1]))
    near(bonus, [[0.2, 0.5, 1.0, 1.5], [-0.2, -0.5, -0.6, -0.6], [0.0, 0.0, 0.0, 0.0]])


def test_places_are_those_among_the_trained_tokens():
    bonus = Position(alpha=1.0, steepness=K)(tokens([9.0], [0, 1, 1, 0, 1, 1, 0]))
    near(bonus[:, [1, 2, 4, 5]], [[0.1, 0.25, 0.5, 0.75]])
    assert bonus.isfinite().all()


def test_steepness_of_zero_gives_every_token_half_of_alpha():
    near(Position(alpha=1.0, steepness=0.0)(tokens([9.0], [1, 1, 1])), [[0.5, 0.5, 0.5]])


def test_one_token_has_the_bonus_of_the_first_and_none_is_no_error():
    # rho = 0: logistic(-k / 2) = logistic(-2 log 3) = 1/10
    near(Position(alpha=1.0, steepness=K)(tokens([9.0], [1, 0]))[:, :1], [[0.1]])
    assert Position()(tokens([9.0], [0, 0])).isfinite().all()


def test_released_constants():
    # the last of 1000 tokens: 0.1 / (1 + exp(-15 * 0.499)) = 0.0999439
    near(Position()(tokens([1.0], [1] * 1000))[0, -1:], [0.1 / (1 + math.exp(-15 * 0.499))])


def test_it_acts_from_start_step_until_before_end_step():
    rule = Position(start_step=2, end_step=4)
    assert [bool(rule(tokens([1.0], [1, 1], step)).any()) for step in range(6)] == [0, 0, 1, 1, 0, 0]
    open_end = Position(start_step=2)
    assert [bool(open_end(tokens([1.0], [1, 1], step)).any()) for step in range(6)] == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("start", "end"), [(-1, None), (3, 3), (3, 2), (0, 0), (0.5, None), (0, 1.5), (True, None), ("1", None)]
)
def test_steps_that_are_not_in_order_are_refused(start, end):
    with pytest.raises(ValueError, match="start_step and end_step must be whole numbers with 0 <= start_step < end"):
        Position(start_step=start, end_step=end)


@pytest.mark.parametrize("name", ["alpha", "steepness"])
@pytest.mark.parametrize("value", [-0.1, math.inf, "1"])
def test_value_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        Position(**{name: value})


def test_it_selects_tokens_and_needs_nothing_more():
    assert Position.token_selective
    assert Position.needs == set()
