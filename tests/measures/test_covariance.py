import pytest
import torch
from toy import random_tokens

from trl_entropy import Tokens
from trl_entropy.measures import Means
from trl_entropy.measures.covariance import covariance, covariance_parts


def measured(*batches: Tokens) -> dict[str, float]:
    means = Means()
    for batch in batches:
        means.add_values(covariance_parts(batch))
    return covariance(means.reduce(lambda values: values))


def test_value_by_hand():
    # log-probs -1, -2, -3 with advantages 1, 0, -1: mean of the products (-1 + 0 + 3) / 3, means -2 and 0
    logps, advantages = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    tokens = Tokens(logps, logps, logps, advantages, torch.ones(1, 3, dtype=torch.bool))
    assert measured(tokens) == pytest.approx({"covariance/logp_advantage": 2 / 3}, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_all_tokens_of_the_step(seed):
    batches = [random_tokens(seed), random_tokens(seed + 10, rows=7, length=9)]
    pairs = [torch.stack([batch.logps[batch.mask], batch.advantages[batch.mask]]).double() for batch in batches]
    expected = torch.cov(torch.cat(pairs, dim=1), correction=0)[0, 1].item()
    assert measured(*batches) == pytest.approx({"covariance/logp_advantage": expected}, abs=1e-6)  # float32 sums


def test_without_tokens_there_is_none():
    assert covariance({}) == {}


@pytest.mark.parametrize("seed", range(3))
def test_which_gradient_changes_entropy_by_minus_it(seed):
    # in one state, of logits z: the natural policy gradient by z is the advantage A, the vanilla one pi (A - E[A])
    logits, advantages = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits.requires_grad_()
    logps = logits.log_softmax(-1)
    (slope,) = torch.autograd.grad(-(logps.exp() * logps).sum(), logits)
    logps = logps.detach()
    policy = logps.exp()
    advantages = advantages - (policy * advantages).sum()

    def of(values: torch.Tensor) -> float:
        parts = {"logp": logps, "advantage": values, "product": logps * values}
        means = {f"_covariance/{name}": (policy * part).sum().item() for name, part in parts.items()}
        return covariance(means)["covariance/logp_advantage"]

    assert (slope * advantages).sum().item() == pytest.approx(-of(advantages), rel=1e-9)
    assert (slope * policy * advantages).sum().item() == pytest.approx(-of(policy * advantages), rel=1e-9)
