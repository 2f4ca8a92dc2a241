import math

import pytest
import torch
from toy import chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import DifferentialSmoothing


NAN = math.nan


def test_bonus_by_hand():
    # log pi_old(y) = -3, -1.5, -4 over the trained tokens; the last completion has no reward
    old = torch.tensor([[-1.0, -2.0], [-1.5, -9.0], [-1.0, -3.0], [-1.0, -1.0]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]]).bool()
    zeros = torch.zeros(4, 2)
    given = Tokens(zeros, old, zeros, zeros, mask, rewards=torch.tensor([1.0, 1.0, 0.0, NAN]))
    bonus = DifferentialSmoothing(gamma_p=0.1, gamma_n=0.01)(given)
    torch.testing.assert_close(bonus[:, 0], torch.tensor([0.3, 0.15, -0.04, 0.0]))
    assert torch.equal(bonus[:, 0], bonus[:, 1])


def test_coefficients_act_on_their_own_side():
    zeros = torch.zeros(2, 1)
    given = Tokens(zeros, zeros - 2, zeros, zeros, zeros == 0, rewards=torch.tensor([1.0, 0.0]))
    assert DifferentialSmoothing(gamma_p=0.5, gamma_n=0.0)(given).tolist() == [[1.0], [0.0]]
    assert DifferentialSmoothing(gamma_p=0.0, gamma_n=0.5)(given).tolist() == [[0.0], [-1.0]]


def test_gradient_is_that_of_the_smoothed_advantage():
    given, logits = table_case()
    given["rewards"] = torch.tensor([1.0, 0.0] * 4).double()
    mask = given["completion_mask"].bool()
    old = torch.where(mask, given["old_per_token_logps"], 0.0).sum(1)
    smoothed = given["advantages"] + torch.where(given["rewards"] == 1, -0.05 * old, 0.02 * old)
    rules = {"differential_smoothing": {"gamma_p": 0.05, "gamma_n": 0.02}}
    found = table_gradient(table(logits, advantage_bonuses=rules), given)
    expected = table_gradient(table(logits, plain=True), {**given, "advantages": smoothed})
    assert distance(found, expected) < 1e-7  # float32 coefficients
    assert distance(table_gradient(table(logits, plain=True), given), expected) > 1e-2
    assert (chosen_logps(logits, given["completion_ids"])[mask] != given["old_per_token_logps"][mask]).any()


@pytest.mark.parametrize("name", ["gamma_p", "gamma_n"])
def test_value_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got -0.1"):
        DifferentialSmoothing(**{name: -0.1})


def test_it_is_the_same_for_a_whole_completion():
    assert not DifferentialSmoothing.token_selective
    assert not DifferentialSmoothing(gamma_n=0.0).neutral
