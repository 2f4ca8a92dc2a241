import math

import pytest
import torch
from toy import distance, logged, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.looks import TopPEntropy, TopTwoRatio
from trl_entropy.rules.terms import Paec


def tokens(entropies: list[float], ratios: list[float]) -> Tokens:
    entropies = torch.tensor([entropies], requires_grad=True)
    zeros = torch.zeros_like(entropies)
    seen = {TopPEntropy(0.8): entropies, TopTwoRatio(): torch.tensor([ratios])}
    return Tokens(zeros, zeros, zeros, zeros, zeros == 0, vocabulary=seen)


def test_term_and_gradient_by_hand():
    # m = 0.5, 0.5, 0, of mean 1 / 3: weights 1.5, 1.5, 0. The mask has no gradient
    given = tokens([0.5, 1.0, 2.0], [1.0, 0.5, 0.0])
    term = Paec(coef=0.1)(given)
    torch.testing.assert_close(term, torch.tensor([[-0.075, -0.15, 0.0]]))
    (gradient,) = torch.autograd.grad(term.sum(), given.look(TopPEntropy(0.8)))
    torch.testing.assert_close(gradient, torch.tensor([[-0.15, -0.15, 0.0]]))


def test_signal_is_the_weighted_mean():
    given = tokens([0.5, 1.0, 2.0], [1.0, 0.5, 0.0])
    rule = Paec()
    entropies, chosen = rule.watched(given, rule(given))
    assert chosen.all()
    assert entropies.mean().item() == pytest.approx(0.75)  # (1.5 * 0.5 + 1.5 * 1.0) / 3


def test_completion_without_competition_gets_nothing():
    assert (Paec(coef=1.0)(tokens([0.5, 0.0], [0.0, 1.0])) == 0).all()


def test_gradient_is_that_of_the_weighted_entropy_of_the_nucleus():
    given, logits = table_case(scale=1.5)
    mask = given["completion_mask"].bool()
    policy = logits.clone().requires_grad_()
    total = 0.0
    for row in range(8):
        masks, entropies = [], []
        for place in range(int(mask[row].sum())):
            ordered = policy[row, place].softmax(-1).sort(descending=True).values
            number = int((ordered.cumsum(-1) < 0.8).sum()) + 1
            q = ordered[:number] / ordered[:number].sum()
            entropies.append(-(q * q.log()).sum())
            masks.append((entropies[-1] * ordered[1] / ordered[0]).item())
        if sum(masks) > 0:
            total = total + sum(m * h for m, h in zip(masks, entropies, strict=True)) * len(masks) / sum(masks)
    (expected,) = torch.autograd.grad(0.3 * total / mask.sum(), policy)
    without = table_gradient(table(logits, plain=True), given)
    both = table_gradient(table(logits, loss_terms={"paec": {"coef": 0.3}}), given)
    assert expected.norm() > 1e-3
    assert distance(both - without, expected) < 1e-10


def test_preset_acts_below_the_start_alone(run):
    trainer = run(entropy_control="paec", learning_rate=0.05, max_steps=4, loss_terms={"paec": {"p": 0.95}})
    errors = logged(trainer, "controllers/paec/error")
    assert (errors[0], len(set(errors))) == (0.0, 4)
    coefs = [0.0] + [max(0.0, 0.01 * error) for error in errors[:-1]]
    assert logged(trainer, "knobs/loss_terms.paec.coef") == pytest.approx(coefs, abs=1e-9)
    (controller,) = trainer.controllers
    assert (controller.low, controller.high) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 1.1}, "p must be a number >= 0 and <= 1, got 1.1"),
        ({"p": 0.0}, "p must be > 0, got 0: no token would be left"),
        ({"coef": -0.1}, "coef must be a number >= 0, got -0.1"),
        ({"coef": math.nan}, "coef must be a number >= 0, got nan"),
    ],
)
def test_value_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Paec(**settings)


def test_needs_follow_the_settings():
    assert Paec(p=0.9).needs == {TopPEntropy(0.9), TopTwoRatio()}
    assert Paec().neutral
