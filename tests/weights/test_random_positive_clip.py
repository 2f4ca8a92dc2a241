import math
from dataclasses import dataclass, replace

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.rules.weights import RandomPositiveClip, Sign


@dataclass(frozen=True)
class Drawn(Tokens):
    """Tokens whose random numbers are known."""

    def noise(self):
        return torch.tensor([[0.1, 0.3, 0.5, 0.9]]).expand(self.mask.shape)


def tokens(advantages: list[float], length: int = 4, kind=Tokens, **changes) -> Tokens:
    values = torch.tensor(advantages).unsqueeze(1).expand(-1, length)
    zeros = torch.zeros(values.shape)
    return kind(zeros, zeros, zeros, values, torch.ones_like(values, dtype=torch.bool), **changes)


def test_weights_by_hand():
    # of the draws 0.1, 0.3, 0.5, 0.9 the first two are below 0.5; only tokens with A > 0 are dropped
    weights = RandomPositiveClip(share=0.5)(tokens([2.0, -1.0, 0.0], kind=Drawn))
    assert weights.tolist() == [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]


def test_share_of_zero_drops_none_and_of_one_all():
    given = tokens([1.0, -1.0])
    assert (RandomPositiveClip(share=0.0)(given) == 1).all()
    assert torch.equal(RandomPositiveClip(share=1.0)(given), Sign(positive_advantage_coef=0.0)(given))


def test_share_is_that_of_the_dropped_tokens():
    # of 20000 draws the share has a standard deviation of sqrt(0.3 * 0.7 / 20000) = 0.0032
    weights = RandomPositiveClip(share=0.3)(tokens([1.0] * 100, length=200))
    assert abs((weights == 0).float().mean().item() - 0.3) < 4 * 0.0032


def test_draw_is_new_at_every_step_and_for_every_completion():
    given = tokens([1.0, 1.0], length=200)
    weights = RandomPositiveClip(share=0.5)(given)
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights, RandomPositiveClip(share=0.5)(replace(given, step=1)))
    assert torch.equal(weights, RandomPositiveClip(share=0.5)(replace(given)))


def test_larger_share_drops_more_of_the_same_tokens():
    given = tokens([1.0] * 10, length=50)
    few, many = (RandomPositiveClip(share=share)(given) for share in (0.2, 0.6))
    assert (many <= few).all()
    assert (many < few).any()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, True])
def test_share_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="share must be a number >= 0 and <= 1, got"):
        RandomPositiveClip(share=value)


def test_it_selects_tokens_and_needs_completions_to_draw():
    assert RandomPositiveClip.token_selective
    assert RandomPositiveClip.needs == {"completions"}
