import math
from dataclasses import replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.weights import Steer
from trl_entropy.rules.weights.steer import entropy_change


def tokens(probabilities: list, old_probabilities: list, entropies: list, advantages: list, mask=None) -> Tokens:
    logps, old_logps = torch.tensor([probabilities]).log(), torch.tensor([old_probabilities]).log()
    entropies, advantages = torch.tensor([entropies]), torch.tensor([advantages])
    mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
    return Tokens(logps, old_logps, entropies, advantages, mask)


LOG2 = math.log(2)
# -r A (1 - p) (H + log p) with p = 1/2: H + log p = log 2, so -log 2 / 2; with twice the ratio and A = -1 it is log 2;
# H = log 2 makes it 0, and so does p = 1
BY_HAND = tokens([0.5, 0.5, 0.5, 1.0], [0.5, 0.25, 0.5, 1.0], [2 * LOG2, 2 * LOG2, LOG2, 0.0], [1.0, -1.0, 5.0, 5.0])


def test_change_of_entropy_by_hand():
    expected = torch.tensor([[-LOG2 / 2, LOG2, 0.0, 0.0]])
    torch.testing.assert_close(entropy_change(BY_HAND), expected, rtol=1e-6, atol=1e-6)


def test_weights_by_hand():
    # half, all and none of the largest change: 0.25^(1/2), 0.25, 1 and 1
    expected = torch.tensor([[0.5, 0.25, 1.0, 1.0]])
    torch.testing.assert_close(Steer(floor=0.25)(BY_HAND), expected, rtol=1e-5, atol=0)


def test_falling_leaves_tokens_that_raise_entropy_alone():
    # the first lowers entropy; the largest change is that of the second, which raises it
    expected = torch.tensor([[0.5, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(Steer(floor=0.25, sides="falling")(BY_HAND), expected, rtol=1e-5, atol=0)


def test_floor_of_zero_drops_the_largest_alone():
    assert Steer(floor=0.0)(BY_HAND)[0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert Steer(floor=0.0, sides="falling")(BY_HAND)[0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_sign_is_that_of_the_change_by_the_logit_of_the_token():
    # dH / dz_y = -p (H + log p), and the step dz_y of an update goes with A r (1 - p)
    logits = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logps = logits.log_softmax(-1)
    entropies = -(logps.exp() * logps).sum(-1)
    advantages = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = logits.clone()
    moved[:, 0] += 1e-6 * advantages
    moved = moved.log_softmax(-1)
    change = -(moved.exp() * moved).sum(-1) - entropies
    facts = (logps[:, :1], logps[:, :1], entropies.unsqueeze(1), advantages.unsqueeze(1))
    estimate = entropy_change(Tokens(*facts, torch.ones(200, 1, dtype=torch.bool)))[:, 0]
    assert torch.equal(estimate.sign().double(), change.sign())


def test_entropy_is_that_of_the_old_policy():
    given = replace(BY_HAND, old_entropies=torch.tensor([[LOG2, 2 * LOG2, LOG2, 0.0]]))
    torch.testing.assert_close(Steer(floor=0.25)(given), torch.tensor([[1.0, 0.25, 1.0, 1.0]]), rtol=1e-5, atol=1e-6)


def test_maximum_is_over_the_pool():
    # another micro-batch has a change twice as large: 0.25^(1/4), 0.25^(1/2)
    other = tokens([0.5], [0.25], [2 * LOG2], [2.0])
    given = replace(BY_HAND, pool=Pool([BY_HAND, other]))
    expected = torch.tensor([[0.25**0.25, 0.5, 1.0, 1.0]])
    torch.testing.assert_close(Steer(floor=0.25)(given), expected, rtol=1e-5, atol=0)


def test_pool_of_the_step_before_gives_no_weight_below_the_floor():
    given = replace(BY_HAND, pool=Pool([tokens([0.5], [0.5], [2 * LOG2], [0.1])]))
    assert Steer(floor=0.25)(given).min().item() == 0.25


def test_small_changes_are_not_blown_up():
    # the largest change is 0.01 log 2 / 2 = 0.0035 < 0.02
    given = tokens([0.5, 0.5], [0.5, 0.5], [2 * LOG2, LOG2], [0.01, 0.01])
    expected = torch.tensor([[0.25 ** (0.01 * LOG2 / 2 / 0.02), 1.0]])
    torch.testing.assert_close(Steer(floor=0.25)(given), expected, rtol=1e-5, atol=0)


def test_no_advantage_and_no_trained_token_have_weight_one():
    given = tokens([0.5, 0.2], [0.5, 0.2], [1.0, 1.0], [0.0, 0.0])
    assert Steer()(given).tolist() == [[1.0, 1.0]]
    given = tokens([0.5, 0.2], [0.5, 0.2], [1.0, 1.0], [1.0, 1.0], mask=[0, 0])
    assert Steer()(given).isfinite().all()


def test_token_that_the_old_policy_could_not_sample_is_no_error():
    given = tokens([0.5, 0.5], [0.0, 0.5], [2.0, 2.0], [1.0, 1.0])
    assert Steer()(given).isfinite().all()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_floor_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="floor must be a number >= 0 and <= 1, got"):
        Steer(floor=value)


def test_other_sides_are_refused():
    with pytest.raises(ValueError, match="sides must be 'both' or 'falling', got 'rising'"):
        Steer(sides="rising")


def test_it_selects_tokens():
    assert Steer.token_selective
    assert Steer.needs == {"pool", "old_entropies"}
