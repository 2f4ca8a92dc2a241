import math

import pytest
import torch

from trl_entropy import Tokens
from trl_entropy.measures.entropy import (
    entropy_by_correctness,
    entropy_by_position,
    entropy_by_sign,
    entropy_of_prompt,
)


ENTROPIES = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)


def tokens(entropies=ENTROPIES, mask=MASK, advantages=0.0, **facts) -> Tokens:
    return Tokens(entropies, entropies, entropies, torch.as_tensor(advantages).expand_as(entropies), mask, **facts)


def numbers(values) -> dict[str, tuple[float, int]]:
    """Sum and number of the tokens that each mean is over."""
    return {name: (value[chosen].sum().item(), int(chosen.sum())) for name, (value, chosen) in values.items()}


def test_sums_and_counts_by_hand():
    advantages = torch.tensor([[1.0], [-1.0], [0.0]])
    # 1 + 2 = 3 of two tokens, 8 + 16 + 32 = 56 of three, and the 64 of advantage 0 in the first only: 123 of six
    assert numbers(entropy_by_sign(tokens(advantages=advantages))) == {
        "entropy": (123.0, 6),
        "entropy/positive_advantage": (3.0, 2),
        "entropy/negative_advantage": (56.0, 3),
    }


def test_entropy_at_temperature_1_is_that_of_the_fact():
    at_one = torch.tensor([[1.0, 2.0, 4.0]])
    ones, mask = torch.ones(1, 3), torch.tensor([[True, True, False]])
    values = numbers(entropy_by_sign(tokens(ones, mask, entropies_at_one=at_one)))
    assert values["entropy/temperature_1"] == (3.0, 2)
    assert "entropy/temperature_1" not in entropy_by_sign(tokens(ones, mask))


def test_correct_is_a_reward_above_one_half():
    # the completion of reward 1/2 is incorrect, and that without a reward is neither
    rewards = torch.tensor([1.0, 0.5, math.nan])
    assert numbers(entropy_by_correctness(tokens(rewards=rewards))) == {
        "entropy/correct": (3.0, 2),
        "entropy/incorrect": (56.0, 3),
    }


def test_without_rewards_nothing_is_correct():
    assert entropy_by_correctness(tokens()) == {}


@pytest.mark.parametrize(
    ("length", "deciles"),
    [
        (1, [6]),  # 10 * 0.5 / 1 = 5
        (2, [3, 8]),  # 10 * 0.5 / 2 = 2.5, 7.5
        (3, [2, 6, 9]),  # 1.67, 5, 8.33
        (10, list(range(1, 11))),
        (20, [1 + place // 2 for place in range(20)]),
    ],
)
def test_deciles_by_hand(length, deciles):
    entropies = 2.0 ** torch.arange(20).unsqueeze(0)
    parts = numbers(entropy_by_position(tokens(entropies, torch.arange(20).unsqueeze(0) < length)))
    assert list(parts) == [f"entropy/decile_{number}" for number in range(1, 11)]
    for number in range(1, 11):
        inside = [2.0**place for place, decile in enumerate(deciles) if decile == number]
        assert parts[f"entropy/decile_{number}"] == (sum(inside), len(inside))


def test_places_are_counted_among_the_trained_tokens():
    # a tool's answer in the middle and at the start: two trained tokens, in deciles 3 and 8
    entropies = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    parts = numbers(entropy_by_position(tokens(entropies, torch.tensor([[False, True, False, True]]))))
    assert {name: part for name, part in parts.items() if part[1]} == {
        "entropy/decile_3": (2.0, 1),
        "entropy/decile_8": (8.0, 1),
    }


def test_every_token_is_in_one_decile():
    parts = numbers(entropy_by_position(tokens()))
    assert sum(total for total, _ in parts.values()) == 123.0
    assert sum(count for _, count in parts.values()) == 6


def test_entropy_of_the_prompt_is_over_its_tokens():
    prompts = torch.tensor([[math.nan, 1.0], [2.0, 4.0], [math.nan, math.nan]])
    assert numbers(entropy_of_prompt(tokens(prompt_entropies=prompts))) == {"entropy/prompt": (7.0, 3)}
    assert entropy_of_prompt(tokens()) == {}
