import math
from dataclasses import fields

import pytest
import torch
from toy import chosen_logps, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.weights import Sign


def test_weights_by_hand():
    advantages = torch.tensor([[2.0, 2.0], [-0.5, -0.5], [0.0, 0.0]])
    zeros = torch.zeros(3, 2)
    tokens = Tokens(zeros, zeros, zeros, advantages, torch.ones(3, 2, dtype=torch.bool))
    rule = Sign(positive_advantage_coef=0.25, negative_advantage_coef=1.5)
    assert rule(tokens).tolist() == [[0.25, 0.25], [1.5, 1.5], [1.0, 1.0]]


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "1", True, None])
@pytest.mark.parametrize("name", ["positive_advantage_coef", "negative_advantage_coef"])
def test_coefficient_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0, got"):
        Sign(**{name: value})


def test_flags_are_plain_numbers_of_the_config():
    spec = {parameter.name: parameter.metadata["flag"] for parameter in fields(Sign)}
    assert spec == {"positive_advantage_coef": True, "negative_advantage_coef": True}
    assert not Sign.token_selective  # so it stands with sequence-level ratios


def test_gradient_on_a_tabular_softmax_policy_is_the_closed_form():
    # dJ/dz_v = r (1[v = y] - pi(v)) w A, and 0 where (A > 0 and r > 1 + eps_high) or (A < 0 and r < 1 - eps_low);
    # the dapo loss divides the sum over tokens by their number
    low, high, positive, negative = 0.2, 0.28, 0.4, 1.7
    given, logits = table_case()
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    ratio = (chosen_logps(logits, ids) - given["old_per_token_logps"]).exp()
    advantages = given["advantages"].unsqueeze(1).expand_as(ratio)
    clipped = ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))
    weight = torch.where(advantages > 0, positive, torch.full_like(advantages, negative))
    onehot = torch.nn.functional.one_hot(ids.long(), logits.size(-1))
    factor = torch.where(mask & ~clipped, ratio * weight * advantages, 0.0) / mask.sum()
    expected = factor.unsqueeze(-1) * (onehot - logits.softmax(-1))

    coefficients = {"positive_advantage_coef": positive, "negative_advantage_coef": negative}
    actual = table_gradient(table(logits, epsilon=low, epsilon_high=high, **coefficients), given)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)
    for kind in (advantages > 0, advantages < 0):  # every case of the formula is there
        assert (clipped & kind & mask).any()
        assert (~clipped & kind & mask).any()


def test_weight_of_zero_keeps_the_token_in_the_denominator():
    given, logits = table_case()
    negative_only = given | {"advantages": given["advantages"].clamp(max=0.0)}
    actual = table_gradient(table(logits, positive_advantage_coef=0.0), given)
    expected = table_gradient(table(logits, plain=True), negative_only)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)
