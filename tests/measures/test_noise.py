import pytest
import torch

from trl_entropy.measures import Means
from trl_entropy.measures.noise import GradientNoise, noise_share


def shares(rollouts, ranks: int = 1) -> list[float | None]:
    """The share of every gradient, given as a list for each rollout; every rank holds a part of them."""
    noises, found = [GradientNoise() for _ in range(ranks)], []
    for gradients in rollouts:
        for noise in noises:
            noise.begin_rollout()
        for gradient in gradients:
            parts = [Means() for _ in noises]
            for means, noise, part in zip(parts, noises, gradient.chunk(ranks), strict=True):
                means.add(noise.add(part))
            sums = [next(iter(means._sums.values()), None) for means in parts]
            parts[0]._sums = {} if sums[0] is None else parts[0]._sums
            found.append(noise_share(parts[0].reduce(lambda _, sums=sums: sum(sums))))
    return [share.get("authority/noise_share") for share in found]


def orthogonal(number: int, size: int = 64) -> torch.Tensor:
    """So many directions at right angles, of length 1."""
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(size, number, generator=generator, dtype=torch.float64))[0].T


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("signal", "noise"), [(3.0, 4.0), (1.0, 0.0), (0.0, 2.0)])
def test_known_signal_and_noise(signal, noise, ranks):
    # of length 3 and 4: 16 / (9 + 16) of the squares is noise, whatever a clip of the norm has made of the lengths
    first, *others = orthogonal(7)
    scales = (1.0, 0.5, 1.0, 1.0, 2.0, 2.0)
    gradients = [scale * (signal * first + noise * one) for scale, one in zip(scales, others, strict=True)]
    expected = noise**2 / (signal**2 + noise**2)
    found = shares([gradients[:1], gradients[1:2], gradients[2:4], gradients[4:]], ranks)
    assert found == [None, *[pytest.approx(expected, abs=1e-6)] * 5]  # float32 sums


def test_mean_over_many_steps_is_the_share_of_independent_noise():
    generator = torch.Generator().manual_seed(1)
    signal = torch.full((400,), 0.5)
    rollouts = [[signal + torch.randn(400, generator=generator) for _ in range(4)] for _ in range(20)]
    found = shares(rollouts)[4:]
    assert sum(found) / len(found) == pytest.approx(1 / 1.25, abs=0.01)  # 0.0015 of scatter


def test_gradients_of_one_rollout_are_not_compared():
    first, second, third = orthogonal(3)
    # the halves of a group pull against each other, and a second pass repeats the first
    found = shares([[first], [second, first, first], [third, -second]])
    expected = [None, 1.0, 0.0, 0.0, 1.0, 1 + 1 / 3]
    assert found == [expected[0], *(pytest.approx(value, abs=1e-6) for value in expected[1:])]


def test_a_step_over_several_rollouts_is_of_all_of_them():
    first, second = orthogonal(2)
    noise = GradientNoise()
    noise.add(first)
    for _ in range(2):
        noise.begin_rollout()
    assert noise.add(first)


@pytest.mark.parametrize("gradient", [torch.zeros(4), torch.zeros(0)])
def test_without_a_gradient_there_is_none(gradient):
    assert shares([[gradient], [gradient]]) == [None, None]


@pytest.mark.parametrize("fault", [float("inf"), float("nan")])
@pytest.mark.parametrize("other", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_gives_no_share_and_ends_nothing(fault, other):
    faulty, others = torch.full((4,), fault), torch.full((4,), other)
    sound = torch.ones(4)
    assert shares([[others], [faulty], [others], [sound], [sound]])[:3] == [None] * 3
    assert shares([[faulty], [sound], [sound]]) == [None, None, pytest.approx(0.0, abs=1e-6)]


def test_other_coordinates_begin_anew():
    first, second = torch.ones(4), torch.ones(6)
    assert shares([[first], [second], [second]]) == [None, None, pytest.approx(0.0, abs=1e-6)]
