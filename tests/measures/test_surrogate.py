from dataclasses import replace

import pytest
import torch
from toy import chosen_logps, distance, logged, random_tokens, table, table_case, table_gradient

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.build import token_slopes
from trl_entropy.measures.surrogate import gradient_mass, positive_share, surrogate_slopes


def test_mass_by_hand():
    # ratios 1, 1.1, 1.5 (clipped), and 0.5 (clipped), 1.5 with a negative advantage; clip range [0.8, 1.2]
    ratios = torch.tensor([[1.0, 1.1, 1.5], [0.5, 1.5, 9.0]])
    probabilities = torch.tensor([[0.5, 0.25, 0.5], [0.5, 0.75, 0.5]])
    advantages = torch.tensor([[2.0], [-1.0]]).expand(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    logps = probabilities.log()
    tokens = Tokens(logps, logps - ratios.log(), logps, advantages, mask)
    values = gradient_mass(tokens, surrogate_slopes(tokens, advantages))
    assert all(torch.equal(chosen, mask) for _, chosen in values.values())
    # 2 * 0.5 + 2.2 * 0.75 = 2.65 and 1.5 * 0.25 = 0.375
    sums = {name: value[mask].sum().item() for name, (value, _) in values.items()}
    assert sums == pytest.approx({"gradient_mass/positive": 2.65, "gradient_mass/negative": 0.375}, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_slope_is_the_derivative_of_the_clipped_surrogate(seed):
    tokens = random_tokens(seed, clip_range=(0.2, 0.3))
    logps = tokens.logps.clone().requires_grad_()
    ratios = torch.exp(logps - tokens.old_logps)
    effective = -tokens.advantages  # of the other sign than the raw ones, as a bonus may make them
    surrogate = torch.minimum(ratios * effective, ratios.clamp(0.8, 1.3) * effective)
    (expected,) = torch.autograd.grad(surrogate[tokens.mask].sum(), logps)
    assert replace(tokens, advantages=effective).clipped.any()
    actual = torch.where(tokens.mask, surrogate_slopes(tokens, effective), 0)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("delta", [None, 1.1, 1.4])  # with an upper clip of 1.2
def test_slope_is_that_of_the_loss_of_trl(delta):
    given, logits = table_case()
    given["old_per_token_logps"] = chosen_logps(logits, given["completion_ids"]) - torch.linspace(-1, 1, 48).view(8, 6)
    trainer = table(logits, plain=True, loss_type="dapo", delta=delta)
    logps, mask = chosen_logps(logits, given["completion_ids"]), given["completion_mask"].bool()
    advantages = given["advantages"].unsqueeze(1).expand_as(logps)
    tokens = Tokens(logps, given["old_per_token_logps"], logps, advantages, mask)
    slopes = torch.where(mask, surrogate_slopes(tokens, tokens.advantages, delta), 0)
    onehot = torch.nn.functional.one_hot(given["completion_ids"].long(), logits.size(-1))
    expected = (slopes / mask.sum()).unsqueeze(-1) * (onehot - logits.softmax(-1))
    assert distance(table_gradient(trainer, given), expected) < 1e-6
    if delta is not None:  # it has stopped negative tokens that the clip has not
        assert ((slopes == 0) & (tokens.ratios > delta) & tokens.negative).any()


@pytest.mark.parametrize(
    "another",
    [
        {"loss_type": "cispo"},
        {"loss_type": "sapo"},
        {"loss_type": "vespo"},
        {"importance_sampling_level": "sequence"},
        {"top_entropy_quantile": 0.2},
        {"off_policy_mask_threshold": 0.1},
    ],
)
def test_another_gradient_has_no_slopes(another):
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
    assert token_slopes(EntropyGRPOConfig(**settings, delta=3.0)).keywords == {"delta": 3.0}
    assert token_slopes(EntropyGRPOConfig(**settings, **another)) is None


def test_mass_is_the_derivative_by_the_logit_of_the_token():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    ids, advantages = torch.arange(5), torch.tensor([1.0, -2.0, 0.5, -0.1, 0.0], dtype=torch.float64)
    logps = logits.log_softmax(-1)[torch.arange(5), ids]
    (gradient,) = torch.autograd.grad((advantages * logps).sum(), logits)
    at_token = gradient[torch.arange(5), ids].abs()
    row = logps.detach().unsqueeze(0)
    tokens = Tokens(row, row, row, advantages.unsqueeze(0), torch.ones(1, 5, dtype=torch.bool))
    values = gradient_mass(tokens, surrogate_slopes(tokens, tokens.advantages))
    for sign, chosen in (("positive", advantages > 0), ("negative", advantages < 0)):
        torch.testing.assert_close(values[f"gradient_mass/{sign}"][0][0], torch.where(chosen, at_token, 0))


def test_sure_token_has_no_mass():
    sure = torch.zeros(1, 1)
    values = gradient_mass(Tokens(sure, sure, sure, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)), sure + 1)
    assert [value.item() for value, _ in values.values()] == [0.0, 0.0]


@pytest.mark.parametrize(("positive", "negative", "share"), [(3.0, 1.0, 0.75), (0.0, 2.0, 0.0), (2.0, 0.0, 1.0)])
def test_share_of_the_positive_mass(positive, negative, share):
    means = {"gradient_mass/positive": positive, "gradient_mass/negative": negative}
    assert positive_share(means) == {"gradient_mass/positive_share": share}


@pytest.mark.parametrize("means", [{}, {"gradient_mass/positive": 0.0, "gradient_mass/negative": 0.0}])
def test_where_nothing_pulls_there_is_no_share(means):
    assert positive_share(means) == {}


def test_run_of_another_surrogate_does_not_log_its_slopes(run):
    assert len(logged(run(max_steps=1), "gradient_mass/positive")) == 1
    assert logged(run(max_steps=1, loss_type="cispo", epsilon_high=5.0), "gradient_mass/positive") == []
