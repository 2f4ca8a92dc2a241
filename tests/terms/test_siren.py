import math

import pytest
import torch
from toy import batch, distance, logged, seen_in, table, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.looks import TopPEntropy
from trl_entropy.rules.terms import Siren


def tokens(entropies: list[list[float]], mask=None) -> Tokens:
    """Tokens with these entropies of their likely words."""
    entropies = torch.tensor(entropies)
    zeros, mask = torch.zeros_like(entropies), torch.ones_like(entropies) if mask is None else torch.tensor(mask)
    seen = {TopPEntropy(0.8, reaching=False): entropies.requires_grad_()}
    return Tokens(zeros, zeros, zeros, zeros, mask.bool(), vocabulary=seen)


def test_peaks_by_hand():
    # the 0.8-quantile of five is at place 3.2: 0.4 + 0.2 * 0.1; above lies the last, which stands for all five.
    # Of the second row's three trained tokens it is at 1.6, 0.5 + 0.6 * 0.5 = 0.8
    given = tokens([[0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 0.1, 0.5, 9.0, 9.0]], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    term = Siren(coef=0.5)(given)
    torch.testing.assert_close(term, torch.tensor([[0.0, 0.0, 0.0, 0.0, -1.25], [-1.5, 0.0, 0.0, 0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.look(TopPEntropy(0.8, reaching=False)))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 0.0, 0.0, -2.5], [-1.5, 0.0, 0.0, 0.0, 0.0]]))


def test_signal_is_the_mean_of_the_peaks():
    given = tokens([[0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 0.1, 0.5, 9.0, 9.0]], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    rule = Siren()
    entropies, chosen = rule.watched(given, rule(given))
    # (5 * 0.5 + 3 * 1.0) / 8, whatever the coefficient
    assert entropies[chosen].sum().item() / chosen.sum().item() == pytest.approx(5.5 / 8)


def test_completion_without_peaks_or_tokens_has_none():
    given = tokens([[0.7, 0.7], [0.7, 0.2], [0.3, 0.4]], [[1, 1], [1, 0], [0, 0]])
    assert (Siren(coef=1.0)(given) == 0).all()


def released_entropies(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The entropy of the released `efficient_top_p_sampling`, `(N,)`: words from the cut-off on are left out."""
    found = []
    for row in logits:
        probabilities, order = row.softmax(-1).sort(descending=True)
        cut = int(torch.searchsorted(probabilities.detach().cumsum(-1), torch.tensor(p, dtype=row.dtype)))
        kept = torch.zeros_like(row)
        kept[order[:cut]] = 1.0
        masked = row.softmax(-1) * kept
        masked = masked / (masked.sum() + 1e-12)
        found.append(-(masked * torch.log(masked + 1e-12)).sum())
    return torch.stack(found)


def released_mean(logits: torch.Tensor, p: float, quantile: float) -> torch.Tensor:
    """The mean over completions of the mean over the tokens that the released `mask_by_quantile` keeps."""
    means = []
    for row in logits:
        entropies = released_entropies(row, p)
        peaks = entropies > torch.nanquantile(entropies.detach(), quantile)
        means.append((entropies * peaks).sum() / peaks.sum())
    return torch.stack(means).mean()


@pytest.mark.parametrize(("p", "quantile"), [(0.8, 0.8), (0.9, 0.5), (0.6, 0.3)])
def test_gradient_is_that_of_the_released_loss(p, quantile):
    # gamma (M - M_0)^2 with M_0 = 1.3; completions of one length, so that their mean is that over tokens
    gamma, start = 0.005, 1.3
    given = batch(seed=5, vocabulary=9)
    given["completion_mask"] = torch.ones_like(given["completion_mask"])
    given["num_items_in_batch"] = given["completion_mask"].sum()
    given["completion_ids"] = given["completion_ids"].clamp(max=8)
    given["advantages"] = given["advantages"].double()
    logits = torch.randn(8, 6, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    policy = logits.clone().requires_grad_()
    mean = released_mean(policy, p, quantile)
    (expected,) = torch.autograd.grad(-gamma * (mean - start) ** 2, policy)

    without = table_gradient(table(logits, plain=True), given)
    rule = {"siren": {"coef": 2 * gamma * (start - mean.item()), "p": p, "quantile": quantile}}
    both = table_gradient(table(logits, loss_terms=rule), given)
    assert expected.norm() > 1e-5
    assert distance(both - without, expected) < 1e-6


def test_look_is_the_entropy_of_the_released_code():
    logits = 2 * torch.randn(3, 4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    look = TopPEntropy(0.8, reaching=False)
    expected = released_entropies(logits.flatten(0, 1), 0.8).view(3, 4)
    torch.testing.assert_close(seen_in(logits, looks=[look])[look], expected, rtol=0, atol=1e-10)


def test_preset_turns_the_coefficient_in_proportion_to_the_way_from_the_start(run):
    trainer = run(entropy_control="siren", learning_rate=0.05, max_steps=4, loss_terms={"siren": {"p": 0.95}})
    start, errors = logged(trainer, "controllers/siren/start"), logged(trainer, "controllers/siren/error")
    assert (errors[0], len(set(errors))) == (0.0, 4)
    coefs = [0.0] + [0.01 * error for error in errors[:-1]]
    assert logged(trainer, "knobs/loss_terms.siren.coef") == pytest.approx(coefs, abs=1e-9)
    assert trainer.signal("entropy/loss_terms.siren") == pytest.approx(start[0] - errors[-1], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 1.1}, "p must be a number >= 0 and <= 1, got 1.1"),
        ({"quantile": -0.1}, "quantile must be a number >= 0 and <= 1, got -0.1"),
        ({"p": 0.0}, "p must be > 0 and quantile < 1, got p=0 and quantile=0.8"),
        ({"quantile": 1.0}, "p must be > 0 and quantile < 1, got p=0.8 and quantile=1"),
        ({"coef": math.nan}, "coef must be a number, got nan"),
    ],
)
def test_value_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Siren(**settings)


def test_needs_follow_the_settings():
    assert Siren(p=0.9, reaching=True).needs == {TopPEntropy(0.9)}
    assert Siren().neutral
    assert not Siren(coef=-0.1).neutral
