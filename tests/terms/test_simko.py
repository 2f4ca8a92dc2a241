import math

import pytest
import torch
from toy import batch, chosen_logps, distance, moved, table, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.looks import IsTop1, TopKLogp
from trl_entropy.rules.terms import Simko


def tokens(advantage: float, top: list[bool], change: float = 0.0, clip_range=(0.2, 0.2)) -> Tokens:
    """Two uncertain tokens and two that are not; the candidates' mean is 0.5 nats above them."""
    logps = torch.full((1, 4), -1.0, requires_grad=True)
    advantages, entropies = torch.full((1, 4), advantage), torch.tensor([[0.1, 2.0, 3.0, 0.2]])
    seen = {IsTop1(): torch.tensor([top]), TopKLogp(3): torch.full((1, 4), -0.5, requires_grad=True)}
    old = logps.detach() - change
    return Tokens(logps, old, entropies, advantages, entropies > 0, clip_range=clip_range, vocabulary=seen)


RULE = {"alpha": 0.1, "quantile": 0.5}  # the median is 1.1


def test_right_tokens_share_their_gradient():
    # -0.1 * 2 * (-0.5 + 1)
    given = tokens(2.0, [True] * 4)
    term = Simko(**RULE)(given)
    torch.testing.assert_close(term, torch.tensor([[0.0, -0.1, -0.1, 0.0]]))
    of_token, of_candidates = torch.autograd.grad(term.sum(), [given.logps, given.look(TopKLogp(3))])
    torch.testing.assert_close(of_token, torch.tensor([[0.0, 0.2, 0.2, 0.0]]))
    torch.testing.assert_close(of_candidates, torch.tensor([[0.0, -0.2, -0.2, 0.0]]))


def test_likeliest_wrong_tokens_are_punished_harder():
    # 0.1 * 2, and only where the token was the likeliest
    given = tokens(-2.0, [True, True, False, True])
    term = Simko(**RULE)(given)
    torch.testing.assert_close(term, torch.tensor([[0.0, 0.2, 0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.logps)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.2, 0.0, 0.0]]))


@pytest.mark.parametrize(("advantage", "change"), [(2.0, 0.5), (-2.0, -0.5)])
def test_clipped_tokens_have_no_gradient(advantage, change):
    for clip_range, some in (((0.2, 0.2), False), ((1.0, math.inf), True)):
        given = tokens(advantage, [True] * 4, change, clip_range)
        inputs = [given.logps, given.look(TopKLogp(3))]
        gradients = torch.autograd.grad(Simko(**RULE)(given).sum(), inputs, allow_unused=True)
        assert any(one is not None and (one != 0).any() for one in gradients) is some


def released(logits, given, alpha, penalty, k, tau, epsilon) -> torch.Tensor:
    """The released `compute_policy_loss_simko`, with old log-probs of the candidates of its own."""
    ids, mask, old = given["completion_ids"], given["completion_mask"].bool(), given["old_per_token_logps"]
    logps, top = chosen_logps(logits, ids), logits.log_softmax(-1).topk(k).values
    probabilities = logits.detach().softmax(-1)
    entropies = -(probabilities * probabilities.log()).sum(-1)
    thresholds = torch.stack([torch.quantile(row[kept], tau) for row, kept in zip(entropies, mask, strict=True)])
    uncertain = entropies > thresholds.unsqueeze(1)
    advantages = given["advantages"].unsqueeze(1).expand_as(logps)
    change = top - moved(top.detach(), by=0.3)
    ratio = torch.exp(logps - old)
    candidates = (ratio.detach().unsqueeze(-1) / change.detach().exp() * change.exp()).sum(-1)
    share = alpha * uncertain.double()
    ratio = torch.where(advantages > 0, (1 - share) * ratio + share / k * candidates, ratio)
    harder = (advantages < 0) & uncertain & (logits.argmax(-1) == ids)
    advantages = torch.where(harder, penalty * advantages, advantages)
    losses = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))
    return losses[mask].mean()


@pytest.mark.parametrize(
    ("alpha", "penalty", "k", "tau"), [(0.01, 1.1, 3, 0.8), (0.5, 1.0, 2, 0.3), (0.0, 2.0, 1, 0.3), (1.0, 1.5, 9, 0.0)]
)
def test_whole_loss_has_the_gradient_of_the_released_code(alpha, penalty, k, tau):
    given = batch(seed=7, rows=8, vocabulary=9)
    logits = 2 * torch.randn(8, 6, 9, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    likely = torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) < 0.6  # so that many are the likeliest
    given["completion_ids"] = torch.where(likely, logits.argmax(-1), given["completion_ids"])
    given["advantages"] = given["advantages"].double()
    given["old_per_token_logps"] = moved(chosen_logps(logits, given["completion_ids"]), by=0.2)
    policy = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-released(policy, given, alpha, penalty, k, tau, 0.2), policy)

    rule = {"simko": {"alpha": alpha, "penalty": penalty, "k": k, "quantile": tau}}
    settings = {"loss_type": "dapo", "epsilon": 0.2}
    found = table_gradient(table(logits, loss_terms=rule, **settings), given)
    plain = table_gradient(table(logits, plain=True, **settings), given)
    assert distance(found, expected) < 1e-9
    assert distance(plain, expected) > 1e-4


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_number_of_candidates_is_a_whole_number(k):
    with pytest.raises(ValueError, match="k must be a whole number >= 1, got"):
        Simko(k=k)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.1}, "alpha must be a number >= 0 and <= 1, got 1.1"),
        ({"penalty": -0.1}, "penalty must be a number >= 0, got -0.1"),
        ({"quantile": -0.1}, "quantile must be a number >= 0 and <= 1, got -0.1"),
        ({"quantile": 1.0}, "quantile must be < 1, got 1: no token would be left"),
    ],
)
def test_value_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Simko(**settings)


def test_needs_follow_the_settings():
    assert Simko(k=5).needs == {IsTop1(), TopKLogp(5)}
    assert not Simko(alpha=0.0).neutral
