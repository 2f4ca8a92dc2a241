"""The gradient of every rule, by finite differences of TRL's own loss on a table of logits in float64."""

import pytest
import torch
from test_tokens import ACTING, CATALOGUE
from toy import distance, entropy_of_table, moved, table, table_case

from trl_entropy.rules.bonuses import BONUSES
from trl_entropy.rules.terms import TERMS
from trl_entropy.rules.weights import WEIGHTS


STEP = 1e-6
SECTION = {**dict.fromkeys(WEIGHTS, "token_weights"), **dict.fromkeys(BONUSES, "advantage_bonuses")}
SECTION |= dict.fromkeys(TERMS, "loss_terms")
# Their gradient is not that of their value: a stopped factor, or a choice that jumps at a quantile; each has a test of
# its gradient of its own
STOPPED = {"ce_gppo", "lp_reg", "paec", "simko", "siren"}


def case(seed: int = 5) -> tuple[dict, torch.Tensor]:
    given, logits = table_case(seed, scale=4.0)  # with confident tokens
    entropies = entropy_of_table(logits)
    given["old_entropies"] = entropies + 0.02 * moved(torch.zeros_like(entropies), by=1.0, seed=3)
    generator = torch.Generator().manual_seed(seed)
    given["group_rewards"] = torch.randint(0, 2, (8, 5), generator=generator).double()
    given["group_rewards"][:, 0], given["group_rewards"][:, 1] = 1.0, 0.0
    given["group_rewards"][3] = 1.0  # all correct
    given["rewards"] = given["group_rewards"][:, 2]
    given["group_logps"] = -torch.rand(8, 5, generator=generator, dtype=torch.float64)
    given["offline"] = torch.arange(8) % 3 == 1
    return given, logits


def settings(name: str) -> dict:
    rule = {key: value for key, value in ACTING[name].items() if name != "sign"}
    flags = ACTING[name] if name == "sign" else {}
    return {SECTION[name]: {name: rule}, **of_trl(name), **flags}


def of_trl(name: str) -> dict:
    """The loss of TRL, with as wide a clip as the rule needs."""
    low, high = CATALOGUE[name](**ACTING[name]).least_clip_range
    return {"beta": 0.1, "loss_type": "dapo", "epsilon": max(0.2, low), "epsilon_high": max(0.2, high)}


def trained(given: dict) -> torch.Tensor:
    return given["completion_mask"].bool()


# Random directions of the 336 logits. A gradient that is wrong anywhere is wrong in each of them.
DIRECTIONS = torch.randn(8, 8, 6, 7, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def slopes(gradient: torch.Tensor) -> torch.Tensor:
    """The derivative in each direction."""
    return (DIRECTIONS * gradient).flatten(1).sum(1)


def differences(loss_at, logits: torch.Tensor) -> torch.Tensor:
    """Central differences in each direction."""
    ends = [[loss_at(logits.detach() + sign * STEP * along).item() for sign in (1, -1)] for along in DIRECTIONS]
    return torch.tensor([(above - below) / (2 * STEP) for above, below in ends], dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(WEIGHTS | BONUSES))
def test_gradient_is_that_of_trl_with_the_effective_advantages_held_fixed(name):
    given, logits = case()
    trainer = table(logits, **settings(name))
    decided = []
    decide = trainer.effective_advantages
    trainer.effective_advantages = lambda raw, tokens: decided.append(decide(raw, tokens)) or decided[-1]
    loss = trainer._compute_loss(trainer.model, given)
    (gradient,) = torch.autograd.grad(loss, trainer.logits)
    assert decided[-1].shape == trained(given).shape
    held = {**given, "advantages": decided[-1]}

    plain = table(logits, plain=True, **of_trl(name))

    def loss_at(shifted):
        plain.logits = shifted
        return plain._compute_loss(plain.model, held)

    assert distance(slopes(gradient), differences(loss_at, logits)) < 1e-6
    plain = table(logits, plain=True, **of_trl(name))
    (without,) = torch.autograd.grad(plain._compute_loss(plain.model, given), plain.logits)
    assert distance(gradient, without) > 1e-4  # the rule has changed it


@pytest.mark.parametrize("name", sorted(set(TERMS) - STOPPED))
def test_gradient_of_a_term_is_that_of_its_value(name):
    given, logits = case()

    shifting = table(logits, **settings(name))

    def loss_at(shifted):
        shifting.logits = shifted.requires_grad_()  # some terms look for the gradient of entropies
        return shifting._compute_loss(shifting.model, given)

    trainer = table(logits, **settings(name))
    (gradient,) = torch.autograd.grad(trainer._compute_loss(trainer.model, given), trainer.logits)
    assert distance(slopes(gradient), differences(loss_at, logits)) < 1e-6


def test_exceptions_are_in_the_catalogue():
    assert set(TERMS) >= STOPPED
    assert set(SECTION) == set(CATALOGUE)
