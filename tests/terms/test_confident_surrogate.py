import math

import pytest
import torch
from toy import batch, chosen_logps, distance, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.terms import ConfidentSurrogate


def tokens(logps: torch.Tensor, old_logps: torch.Tensor, advantages: list[float]) -> Tokens:
    return Tokens(logps, old_logps, logps, torch.tensor([advantages]), torch.ones_like(logps, dtype=torch.bool))


def test_term_by_hand():
    # -alpha r |A| with alpha = -0.5 on probability 0.98 > 0.95: r = 0.98 / 0.49 = 2, so 0.5 * 2 * 3 = 3 for either
    # sign of the advantage; the token of probability 0.9 gets 0
    logps = torch.tensor([[0.98, 0.98, 0.9]]).log()
    old = torch.tensor([[0.49, 0.49, 0.9]]).log()
    given = tokens(logps, old, [3.0, -3.0, 3.0])
    term = ConfidentSurrogate(alpha=-0.5, mean_over="all")(given)
    torch.testing.assert_close(term, torch.tensor([[3.0, 3.0, 0.0]]), rtol=1e-6, atol=0)
    # two of three tokens are confident: 3 / 2 times as much, so that the mean over all is 3, that over the two
    term = ConfidentSurrogate(alpha=-0.5)(given)
    torch.testing.assert_close(term, torch.tensor([[4.5, 4.5, 0.0]]), rtol=1e-6, atol=0)


def test_without_a_confident_token_the_term_is_zero():
    unsure = torch.tensor([[0.5, 0.9]]).log()
    assert ConfidentSurrogate(alpha=-0.5)(tokens(unsure, unsure, [3.0, -3.0])).tolist() == [[0.0, 0.0]]


def test_gradient_by_hand():
    # d/dlogp of -alpha exp(logp - old) |A| is the term itself: 4.5, 4.5 and 0 as above
    logps = torch.tensor([[0.98, 0.98, 0.9]]).log().requires_grad_()
    old = torch.tensor([[0.49, 0.49, 0.9]]).log()
    ConfidentSurrogate(alpha=-0.5)(tokens(logps, old, [3.0, -3.0, 3.0])).sum().backward()
    torch.testing.assert_close(logps.grad, torch.tensor([[4.5, 4.5, 0.0]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [-1.01, 1.01, math.nan])
def test_alpha_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="alpha must be a number >= -1 and <= 1, got"):
        ConfidentSurrogate(alpha=value)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_threshold_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="threshold must be a number >= 0 and <= 1, got"):
        ConfidentSurrogate(threshold=value)


def closed_form(given: dict, logits: torch.Tensor, alpha: float, threshold: float) -> torch.Tensor:
    """Minus the gradient of the mean term over the trained tokens: alpha r |A| (1[v = y] - pi(v)) where confident."""
    ids, mask = given["completion_ids"], given["completion_mask"].bool()
    logps = chosen_logps(logits, ids)
    ratio = (logps - given.get("old_per_token_logps", logps)).exp()
    factor = alpha * ratio * given["advantages"].abs().unsqueeze(1) * (mask & (logps.exp() > threshold)) / mask.sum()
    onehot = torch.nn.functional.one_hot(ids.long(), logits.size(-1))
    return factor.unsqueeze(-1) * (onehot - logits.softmax(-1))


@pytest.mark.parametrize("loss_type", ["dapo", "cispo", "vespo"])
@pytest.mark.parametrize("alpha", [-0.7, 0.4])
def test_it_adds_its_mean_over_the_trained_tokens_to_a_loss_that_has_this_mean(loss_type, alpha):
    given, logits = table_case()
    surrogate = table_gradient(table(logits, plain=True, loss_type=loss_type), given)
    terms = {"confident_surrogate": {"alpha": alpha, "threshold": 0.15, "mean_over": "all"}}
    both = table_gradient(table(logits, loss_type=loss_type, loss_terms=terms), given)
    expected = closed_form(given, logits, alpha, threshold=0.15)
    assert distance(both - surrogate, expected) < 1e-10
    assert expected.norm() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"gradient_accumulation_steps": 2, "steps_per_generation": 6}])
def test_on_policy_it_is_what_confident_sign_adds(sizes, training):
    # so it has the denominator of TRL's dapo loss, in evaluation too
    given, logits = table_case()
    del given["old_per_token_logps"]
    rule = {"alpha": -0.6, "threshold": 0.15}
    gradients = []
    term = {**rule, "mean_over": "all"}
    for settings in ({"loss_terms": {"confident_surrogate": term}}, {"token_weights": {"confident_sign": rule}}):
        trainer = table(logits, **sizes, **settings)
        trainer.model.training = training
        gradients.append(table_gradient(trainer, given))
    assert distance(*gradients) < 1e-12
    assert distance(gradients[0], table_gradient(table(logits, plain=True, **sizes), given)) > 1e-2


def test_off_policy_it_pushes_where_the_clip_has_stopped_the_main_loss():
    # one token of probability 1/2, r = 2 > 1.2 and A = 1: the main loss has gradient 0; the term's alpha r |A|
    # (1 - pi(y)) = -1 * 2 * 1/2 = -1 at the sampled word and +1 at the other
    logits = torch.zeros(1, 1, 2, dtype=torch.float64)
    given = batch(rows=1, length=1) | {
        "completion_ids": torch.tensor([[1]]),
        "advantages": torch.ones(1, dtype=torch.float64),
        "old_per_token_logps": torch.full((1, 1), math.log(0.25), dtype=torch.float64),
    }
    rule = {"alpha": -1.0, "threshold": 0.4}
    assert table_gradient(table(logits, plain=True), given).tolist() == [[[0.0, 0.0]]]
    weighted = table_gradient(table(logits, token_weights={"confident_sign": rule}), given)
    assert weighted.tolist() == [[[0.0, 0.0]]]
    pushed = table_gradient(table(logits, loss_terms={"confident_surrogate": rule}), given)
    torch.testing.assert_close(pushed, torch.tensor([[[1.0, -1.0]]], dtype=torch.float64), rtol=1e-12, atol=0)


def released_gradient(given: dict, logits: torch.Tensor, alpha: float, threshold: float) -> torch.Tensor:
    """Minus the gradient of the released code's loss: a dual clip of 3, and its term's mean over the confident."""
    z = logits.clone().requires_grad_()
    mask, advantages = given["completion_mask"].double(), given["advantages"].unsqueeze(1)
    logps = chosen_logps(z, given["completion_ids"])
    ratio = (logps - given.get("old_per_token_logps", logps.detach())).exp()
    clipped = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    main = torch.where(advantages < 0, torch.minimum(clipped, -3 * advantages), clipped)
    confident = mask * (logps.detach().exp() > threshold)
    term = (-ratio * advantages.abs() * confident).sum() / confident.sum()
    (gradient,) = torch.autograd.grad(-(main * mask).sum() / mask.sum() - alpha * term, z)
    return gradient


@pytest.mark.parametrize("alpha", [-0.5, 0.5])
@pytest.mark.parametrize("off_policy", [True, False])
def test_entropic_has_the_gradient_of_the_released_code(off_policy, alpha):
    given, logits = table_case()
    if off_policy:  # one token whose ratio of 4 the dual clip stops; its advantage is negative
        row = given["advantages"].argmin()
        given["old_per_token_logps"][row, 0] = chosen_logps(logits, given["completion_ids"])[row, 0] - math.log(4)
    else:
        del given["old_per_token_logps"]
    rule = {"alpha": alpha, "threshold": 0.15}
    settings = {"entropy_control": "entropic", "loss_terms": {"confident_surrogate": rule}}
    expected = released_gradient(given, logits, **rule)
    assert distance(table_gradient(table(logits, delta=3.0, **settings), given), expected) < 1e-6
    if off_policy:
        assert distance(table_gradient(table(logits, **settings), given), expected) > 1e-2
    # the weight is another method
    weight = {"entropy_control": "confident_sign", "token_weights": {"confident_sign": rule}}
    assert distance(table_gradient(table(logits, delta=3.0, **weight), given), expected) > 0.1


def test_it_selects_tokens():
    assert ConfidentSurrogate.token_selective


@pytest.mark.parametrize("updates", [1, 2, 4])
def test_mean_is_that_of_the_confident_tokens_of_the_step_whatever_the_rollout_holds(updates):
    # of the rollout's tokens this micro-batch has another share than one over the number of updates
    given, logits = table_case()
    given["num_items_in_batch"] = given["completion_mask"].sum() * updates + 7
    rule = {"alpha": -0.5, "threshold": 0.15, "mean_over": "confident"}
    flags = {"loss_terms": {"confident_surrogate": rule}, "epsilon": 0.2, "steps_per_generation": updates}
    both = table_gradient(table(logits, **flags), given)
    surrogate = table_gradient(table(logits, plain=True, epsilon=0.2, steps_per_generation=updates), given)
    mask = given["completion_mask"].bool()
    confident = mask & (chosen_logps(logits, given["completion_ids"]) > math.log(0.15))
    expected = closed_form(given, logits, -0.5, threshold=0.15) * mask.sum() / confident.sum()
    assert distance(both - surrogate, expected) < 1e-10


def test_step_after_one_without_a_confident_token_has_no_term_with_lagged_statistics():
    sure = tokens(torch.tensor([[0.98]]).log(), torch.tensor([[0.98]]).log(), [1.0])
    before = tokens(torch.tensor([[0.5]]).log(), torch.tensor([[0.5]]).log(), [1.0])
    lagged = sure.with_pool(Pool([before]))
    assert ConfidentSurrogate(alpha=-1.0)(lagged).tolist() == [[0.0]]
    assert ConfidentSurrogate(alpha=-1.0)(sure).tolist() == [[1.0]]


def test_first_step_of_lagged_statistics_has_the_strength_of_one_step():
    # a micro-batch of four has its own statistics alone, and is a quarter of the mean
    given, logits = table_case()
    given["num_items_in_batch"] = given["completion_mask"].sum() * 4
    rule = {"alpha": -0.5, "threshold": 0.15, "mean_over": "confident"}
    sizes = {"gradient_accumulation_steps": 4, "steps_per_generation": 4, "epsilon": 0.2}
    surrogate = table_gradient(table(logits, plain=True, **sizes), given)
    both = table_gradient(table(logits, pooling="lagged", loss_terms={"confident_surrogate": rule}, **sizes), given)
    mask = given["completion_mask"].bool()
    confident = mask & (chosen_logps(logits, given["completion_ids"]) > math.log(0.15))
    expected = closed_form(given, logits, -0.5, threshold=0.15) * mask.sum() / confident.sum() / 4
    assert distance(both - surrogate, expected) < 1e-10
