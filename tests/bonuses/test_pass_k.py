import math
from itertools import combinations

import pytest
import torch

from trl_entropy import EntropyGRPOConfig, Tokens
from trl_entropy.rules.bonuses import PassK


def tokens(rewards: list[float]) -> Tokens:
    """One row for each completion of a group, with advantages that are not TRL's."""
    rewards = torch.tensor(rewards)
    advantages = torch.linspace(-1, 2, len(rewards)).unsqueeze(1).expand(-1, 2)
    zeros, mask = torch.zeros_like(advantages), torch.ones_like(advantages, dtype=torch.bool)
    groups = rewards.expand(len(rewards), -1)
    return Tokens(zeros, zeros, zeros, advantages, mask, rewards=rewards, group_rewards=groups)


def advantages(rewards: list[float], **parameters) -> list[float]:
    given = tokens(rewards)
    values = given.advantages + PassK(**parameters)(given)
    assert torch.equal(values[:, 0], values[:, 1])
    return values[:, 0].tolist()


def test_advantages_by_hand():
    # one of four right, k = 2: of 6 pairs 3 are wrong, rho = std = 1/2; a wrong one is in 3 pairs, 2 of them wrong
    expected = [1.0, *[(1 / 2 - 2 / 3) / (1 / 2)] * 3]
    assert advantages([1.0, 0.0, 0.0, 0.0], k=2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("right", range(9))
def test_it_is_the_released_formula(right, k):
    rewards, size, wrong = [1.0] * right + [0.0] * (8 - right), 8, 8 - right
    rho = 1 - math.comb(wrong, k) / math.comb(size, k)
    std = math.sqrt(rho * (1 - rho)) + 1e-6
    of_wrong = (1 - rho - (math.comb(wrong - 1, k - 1) / math.comb(size - 1, k - 1) if wrong else 0)) / std
    expected = [(1 - rho) / std if reward else of_wrong for reward in rewards]
    assert advantages(rewards, k=k) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("right", [1, 2, 4])
def test_it_is_the_mean_advantage_of_the_sets_that_a_completion_is_in(right):
    rewards = [1.0] * right + [0.0] * (6 - right)
    sets = [(members, max(rewards[i] for i in members)) for members in combinations(range(6), 3)]
    of_sets = torch.tensor([best for _, best in sets], dtype=torch.float64)
    mean, std = of_sets.mean().item(), of_sets.std(correction=0).item()
    expected = []
    for completion in range(6):
        own = [best for members, best in sets if completion in members]
        expected.append((sum(own) / len(own) - mean) / (std + 1e-6))
    assert advantages(rewards, k=3) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_one_attempt_is_the_advantage_of_grpo():
    rewards = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])
    expected = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
    assert advantages(rewards.tolist(), k=1) == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("rewards", [[0.0] * 4, [1.0] * 4, [1.0, 1.0, 1.0, 0.0], [math.nan] * 4])
def test_group_whose_pairs_are_all_alike_has_no_advantage(rewards):
    assert advantages(rewards, k=2) == pytest.approx([0.0] * 4, abs=1e-5)


def test_missing_reward_does_not_count_and_has_no_advantage():
    known = advantages([1.0, 0.0, 0.0, 0.0], k=2)
    assert advantages([1.0, math.nan, 0.0, 0.0, 0.0], k=2) == pytest.approx([known[0], 0.0, *known[1:]], abs=1e-6)
    assert advantages([1.0, math.nan, 0.0], k=3) == pytest.approx([0.0] * 3, abs=1e-6)  # two are too few


def test_right_is_a_reward_above_a_half():
    assert advantages([0.9, 0.5, 0.1, -1.0], k=2) == pytest.approx(advantages([1.0, 0.0, 0.0, 0.0], k=2), abs=1e-6)


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_what_is_no_number_of_attempts_is_refused(k):
    with pytest.raises(ValueError, match="k must be a whole number >= 1, got"):
        PassK(k=k)


def test_group_that_is_too_small_is_refused():
    settings = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none", "num_generations": 4}
    EntropyGRPOConfig(**settings, advantage_bonuses={"pass_k": {"k": 4}})
    with pytest.raises(
        ValueError, match="advantage_bonuses.pass_k needs groups of 5 completions: .* num_generations=4"
    ):
        EntropyGRPOConfig(**settings, advantage_bonuses={"pass_k": {"k": 5}})


def test_it_is_the_same_for_whole_completions():
    assert not PassK.token_selective
    assert PassK.needs == {"group_rewards"}
