import random

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_entropy.lab.evaluation.callback import held_out_scores


FIVE = Dataset.from_dict({"prompt": ["1+1=", "10+2=", "3=", "4=", "5="], "solution": ["2", "12", "3", "4", ""]})
REWARDS = {
    "2": [1.0, 1.0, 1.0, 1.0],
    "12": [1.0, 0.0, 0.5, 0.0],  # half right does not count
    "3": [0.0, 0.0, 0.0, 0.0],
    "4": [0.0, 1.0, 0.0, 1.0],
    "": [None, None, None, None],
}


@pytest.fixture
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def model(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir)


def given_rewards():
    """A reward that gives the i-th completion of a problem the i-th of its `REWARDS`."""
    left = {solution: list(rewards) for solution, rewards in REWARDS.items()}
    return lambda completions, solution: [left[text].pop(0) for text in solution]


@pytest.mark.parametrize("batch_size", [1, 3, 20, 256])
def test_scores_of_known_rewards(model, tokenizer, batch_size):
    scores = held_out_scores(
        model, tokenizer, FIVE, given_rewards(), num_samples=4, max_new_tokens=2, batch_size=batch_size
    )
    # 4 + 1 + 0 + 2 + 0 of 20 samples, and 3 of 5 problems solved at least once
    assert scores == {"avg@4": 7 / 20, "pass@4": 3 / 5}


def test_scores_of_one_sample(model, tokenizer):
    scores = held_out_scores(model, tokenizer, FIVE, given_rewards(), num_samples=1, max_new_tokens=2)
    assert scores == {"avg@1": 2 / 5, "pass@1": 2 / 5}


def test_model_is_sampled_in_evaluation_mode_without_touching_the_random_state(model, tokenizer):
    seen = []

    def record(completions, solution):
        seen.append((completions, model.training))
        return [0.0] * len(completions)

    def sample(seed: int) -> list[str]:
        held_out_scores(model, tokenizer, FIVE, record, num_samples=4, max_new_tokens=6, seed=seed)
        texts, training = seen.pop()
        assert not training
        return texts

    model.train()
    torch.manual_seed(1)
    state, python_state = torch.get_rng_state(), random.getstate()
    first = sample(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state
    assert model.training
    torch.manual_seed(2)
    assert sample(seed=0) == first  # whatever the caller's random state is
    assert sample(seed=1) != first
    assert len(first) == 20
    model.eval()
    sample(seed=0)
    assert not model.training
