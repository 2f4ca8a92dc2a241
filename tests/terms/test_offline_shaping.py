import math

import pytest
import torch
from toy import distance, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.terms import OfflineShaping


def tokens(probabilities: list[float], advantage: float, offline: bool = True) -> Tokens:
    logps = torch.tensor([probabilities]).log().requires_grad_()
    others = logps.detach()
    mask = torch.ones_like(others, dtype=torch.bool)
    return Tokens(logps, others, others, torch.full_like(others, advantage), mask, offline=torch.tensor([offline]))


def test_value_by_hand():
    # f(0.1) = 1/2, f(0.9) = 9/10, f(0.025) = 1/5
    expected = torch.tensor([[-1.0, -1.8, -0.4]])
    torch.testing.assert_close(OfflineShaping()(tokens([0.1, 0.9, 0.025], 2.0)), expected, rtol=1e-6, atol=0)
    # with gamma = 0.3: f(0.1) = 1/4, f(0.9) = 3/4
    actual = OfflineShaping(gamma=0.3)(tokens([0.1, 0.9], -4.0))
    torch.testing.assert_close(actual, torch.tensor([[1.0, 3.0]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", [0.05, 0.1, 1.0])
def test_gradient_by_hand(gamma):
    # df / d log p = p df / dp = gamma p / (p + gamma)^2
    chances, advantage = [0.001, 0.05, 0.1, 0.5, 0.999], 1.5
    given = tokens(chances, advantage)
    (gradient,) = torch.autograd.grad(OfflineShaping(gamma=gamma)(given).sum(), given.logps)
    expected = [[-advantage * gamma * p / (p + gamma) ** 2 for p in chances]]
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-5, atol=0)


def test_gradient_by_the_probability_is_bounded():
    # df / dp = gamma / (p + gamma)^2 is largest at p = 0, 1 / gamma
    given = tokens([1e-6], 1.0)
    (gradient,) = torch.autograd.grad(OfflineShaping()(given).sum(), given.logps)
    assert -gradient.item() / 1e-6 == pytest.approx(10, rel=1e-4)


def test_sampled_completions_have_none():
    given = tokens([0.1, 0.9], 2.0, offline=False)
    term = OfflineShaping()(given)
    assert term.tolist() == [[0.0, 0.0]]
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    assert gradient.tolist() == [[0.0, 0.0]]


def test_with_sampled_only_stored_solutions_have_this_loss_alone():
    # dJ/dz_v = gamma p / (p + gamma)^2 A (1[v = y] - pi(v)) / N on stored solutions, TRL's gradient on the others
    gamma = 0.2
    given, logits = table_case()
    given["offline"] = torch.arange(8) % 2 == 0
    ids, mask = given["completion_ids"].long(), given["completion_mask"].bool()
    chances = logits.softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    offline = given["offline"].unsqueeze(1)
    shaped = gamma * chances / (chances + gamma).square() * given["advantages"].unsqueeze(1)
    factor = torch.where(mask & offline, shaped, 0.0) / mask.sum()
    onehot = torch.nn.functional.one_hot(ids, logits.size(-1))
    expected = factor.unsqueeze(-1) * (onehot - logits.softmax(-1))
    sampled = {**given, "advantages": torch.where(given["offline"], 0.0, given["advantages"])}
    expected = expected + table_gradient(table(logits, plain=True), sampled)

    rules = {"token_weights": {"sampled_only": {}}, "loss_terms": {"offline_shaping": {"gamma": gamma}}}
    assert distance(table_gradient(table(logits, **rules), given), expected) < 1e-10


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_gamma_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="gamma must be a number >= 0, got"):
        OfflineShaping(gamma=value)


def test_gamma_of_nothing_is_refused():
    with pytest.raises(ValueError, match="gamma must be above 0"):
        OfflineShaping(gamma=0)
