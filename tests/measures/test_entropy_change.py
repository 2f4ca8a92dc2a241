from dataclasses import replace

import pytest
import torch
from toy import (
    distance,
    entropy_of_table,
    random_tokens,
    table,
    table_case,
    table_gradient,
)

from trl_entropy import Tokens
from trl_entropy.measures import Means
from trl_entropy.measures.entropy_change import change_parts, predicted_change
from trl_entropy.measures.surrogate import surrogate_slopes


every_seed = pytest.mark.parametrize("seed", range(3))
WEIGHTED = {
    "positive_advantage_coef": 0.3,
    "token_weights": {"high_entropy": {"fraction": 0.6}},
    "advantage_bonuses": {"entropy_advantage": {"alpha": 0.4}},
}


def predicted(*batches: Tokens, effective: torch.Tensor | None = None) -> dict[str, float]:
    means = Means()
    for tokens in batches:
        slopes = surrogate_slopes(tokens, tokens.advantages if effective is None else effective)
        means.add_values(change_parts(tokens, slopes))
    return predicted_change(means.reduce(lambda values: values))


def test_centred_form_by_hand():
    # S = pi (H + log pi) of pi = 1/2, 1/4, 1/4 and H = log 2, log 8, log 2: 0, log(2)/4, -log(2)/4, of mean 0
    logps = torch.tensor([[0.5, 0.25, 0.25]]).log()
    entropies = torch.tensor([[2.0, 8.0, 2.0]]).log()
    advantages = torch.tensor([[1.0, 2.0, -1.0]])
    tokens = Tokens(logps, logps, entropies, advantages, torch.ones(1, 3, dtype=torch.bool))
    part = torch.log(torch.tensor(2.0)).item() / 4 / 3
    assert predicted(tokens) == pytest.approx(
        {
            "entropy_change/predicted": -3 * part,
            "entropy_change/predicted_positive": -2 * part,
            "entropy_change/predicted_negative": -part,
        },
        abs=1e-7,
    )


@every_seed
def test_centred_form_is_a_covariance(seed):
    # without a clip, so that the slope is the ratio times the advantage
    batches = [
        random_tokens(seed + more, clip_range=(1.0, 9.0), expected_discriminator=None, rows=4 + more)
        for more in range(2)
    ]
    pairs = []
    for tokens in batches:
        score = tokens.logps.exp() * (tokens.entropies + tokens.logps)
        pairs.append(torch.stack([tokens.ratios * tokens.advantages, score])[:, tokens.mask].double())
    expected = -torch.cov(torch.cat(pairs, dim=1), correction=0)[0, 1].item()
    assert predicted(*batches)["entropy_change/predicted"] == pytest.approx(expected, abs=1e-6)  # float32 sums


@pytest.mark.parametrize("exact", [True, False])
@every_seed
def test_signs_add_up(seed, exact):
    tokens = random_tokens(seed)
    change = predicted(tokens if exact else replace(tokens, expected_discriminator=None))
    parts = (change[f"entropy_change/predicted_{sign}"] for sign in ("positive", "negative"))
    assert change["entropy_change/predicted"] == pytest.approx(sum(parts), abs=1e-9)


def test_without_tokens_nothing_is_predicted():
    assert predicted_change({}) == {}


def seen_by(trainer) -> list[tuple[Tokens, torch.Tensor]]:
    """What a trainer's measures are given from now on."""
    seen = []
    trainer.observe = lambda tokens, effective: seen.append((tokens, effective))
    return seen


@pytest.mark.parametrize("settings", [{}, WEIGHTED])
@every_seed
def test_exact_form_is_the_derivative_of_entropy_along_the_gradient_of_trl(seed, settings):
    # a table with one row of logits for every token, and the loss that counts every token the same
    given, logits = table_case(seed)
    trainer = table(logits, loss_type="dapo", **settings)
    seen = seen_by(trainer)
    gradient = table_gradient(trainer, given)
    ((tokens, effective),) = seen
    assert tokens.clipped.any()
    rows = logits.clone().requires_grad_()
    entropy = entropy_of_table(rows)[tokens.mask].mean()
    (slope,) = torch.autograd.grad(entropy, rows)
    change = predicted(tokens, effective=effective)["entropy_change/predicted"]
    number = tokens.mask.sum().item()
    assert change / number == pytest.approx((gradient * slope).sum().item(), rel=1e-4)  # float32 sums
    assert abs(change) > 1e-3

    # and a small step does that, but for terms of second order
    step = 1e-3
    after = entropy_of_table(logits + step * gradient)[tokens.mask].mean()
    assert (after - entropy).item() == pytest.approx(step * change / number, rel=1e-2)


@every_seed
def test_exact_form_is_the_derivative_of_entropy_where_all_tokens_share_a_row(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    ids = torch.multinomial(logits.detach().softmax(-1), 40, replacement=True, generator=generator)
    advantages = torch.randn(1, 40, generator=generator, dtype=torch.float64)
    logps = logits.log_softmax(-1)
    entropy = -(logps.exp() * logps).sum()
    discriminators = (logps.exp() * (entropy + logps)).detach()
    expected = (logps.detach().exp() * discriminators).sum().expand(1, 40)
    chosen = logps[ids].unsqueeze(0)
    tokens = Tokens(
        chosen,
        chosen.detach(),
        entropy.expand(1, 40),
        advantages,
        torch.ones(1, 40, dtype=torch.bool),
        expected_discriminator=expected,
    ).detach()
    (gradient,) = torch.autograd.grad((advantages * chosen).mean(), logits, retain_graph=True)
    (slope,) = torch.autograd.grad(entropy, logits)
    change = predicted(tokens)["entropy_change/predicted"]
    assert change == pytest.approx((gradient * slope).sum().item(), rel=1e-4, abs=1e-7)  # float32 sums


def test_rules_of_these_tests_are_at_work():
    given, logits = table_case(0)
    plain, weighted = (table_gradient(table(logits, **settings), given) for settings in ({}, WEIGHTED))
    assert distance(weighted, plain) > 0.1
