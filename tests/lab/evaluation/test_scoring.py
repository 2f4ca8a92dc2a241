import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from trl_entropy.lab.evaluation import scoring
from trl_entropy.lab.evaluation.scoring import score_responses


PROMPTS = [[4, 5, 6], [7], [8, 9]]
RESPONSES = [[2, 3, 4, 5], [6, 1], [10]]


@pytest.fixture(scope="module")
def model(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir).eval()


def by_hand(model, prompt: list[int], response: list[int]) -> list[float]:
    """Log-probability, entropy and entropy of the prompt, one token after the other."""
    row = prompt + response
    logprobs, entropies = [], []
    for place in range(1, len(row)):
        with torch.no_grad():
            probs = model(torch.tensor([row[:place]])).logits[0, -1].double().softmax(-1).tolist()
        logprobs.append(math.log(probs[row[place]]))
        entropies.append(-sum(p * math.log(p) for p in probs))
    before = len(prompt) - 1
    of_prompt = sum(entropies[:before]) / before if before else math.nan
    number = len(response)
    return [sum(logprobs[before:]) / number, sum(entropies[before:]) / number, of_prompt]


@pytest.mark.parametrize("size", [2**31, 1])  # all rows in one pass, and each in its own
def test_means_are_those_by_hand_whatever_the_padding(model, monkeypatch, size):
    monkeypatch.setattr(scoring, "BYTES", size)
    found = score_responses(model, 0, PROMPTS, RESPONSES)
    for score, prompt, response in zip(found, PROMPTS, RESPONSES, strict=True):
        assert list(score) == pytest.approx(by_hand(model, prompt, response), abs=1e-5, nan_ok=True)
    assert math.isnan(found[1].prompt_entropy)


def test_chunks_of_tokens_give_the_same(model, monkeypatch):
    whole = score_responses(model, 0, PROMPTS, RESPONSES)
    monkeypatch.setattr(scoring, "CHUNK", 2)
    for score, expected in zip(score_responses(model, 0, PROMPTS, RESPONSES), whole, strict=True):
        assert list(score) == pytest.approx(list(expected), abs=1e-6, nan_ok=True)


def test_logit_of_minus_infinity_has_no_entropy():
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    logprobs, entropies = scoring._of_tokens(logits, torch.tensor([1]))
    assert logprobs.tolist() == pytest.approx([-math.log(2)])
    assert entropies.tolist() == pytest.approx([math.log(2)])
