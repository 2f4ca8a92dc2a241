"""Responses are sampled from the model's distribution, each with its own random numbers."""

import copy
import math

import numpy as np
import pytest
import torch
from toy import build_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_entropy.lab.evaluation.sampling import SampleId, Sampling, TakeToken, all_ids, batches, sample


PROMPTS = [[4], [5, 6, 7], [8, 9, 10, 11, 12]]


@pytest.fixture(scope="module")
def policy(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir).eval(), AutoTokenizer.from_pretrained(model_dir)


def sampled(policy, rows, prompts=PROMPTS, **settings) -> dict[SampleId, list[int]]:
    sampling = Sampling(**{"max_new_tokens": 8, **settings})
    found = {}
    for batch in batches(prompts, rows, sampling.batch_size):
        found |= zip(batch, sample(*policy, prompts, batch, sampling), strict=True)
    return found


def chances(policy, prompt: list[int]) -> np.ndarray:
    with torch.no_grad():
        return policy[0](torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()


def far(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether counts differ from a distribution by more than 5 standard deviations anywhere."""
    number = counts.sum()
    return bool((abs(counts - number * expected) > 5 * np.sqrt(number * expected * (1 - expected)) + 1).any())


def first_tokens(policy, prompt: list[int], **settings) -> np.ndarray:
    rows = [SampleId(0, number) for number in range(2000)]
    found = sampled(policy, rows, [prompt], max_new_tokens=1, batch_size=2000, **settings)
    return np.bincount([response[0] for response in found.values()], minlength=22)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_first_tokens_have_the_probabilities_of_the_model(policy, prompt):
    counts = first_tokens(policy, prompt)
    assert not far(counts, chances(policy, prompt))
    assert far(counts, np.full(22, 1 / 22))


def test_temperature_and_top_p_change_them_as_they_should(policy):
    expected = chances(policy, PROMPTS[1])
    colder = expected**2 / (expected**2).sum()
    assert not far(first_tokens(policy, PROMPTS[1], temperature=0.5), colder)
    order = (-expected).argsort()
    kept = order[: np.searchsorted(expected[order].cumsum(), 0.5) + 1]
    nucleus = np.zeros(22)
    nucleus[kept] = expected[kept] / expected[kept].sum()
    counts = first_tokens(policy, PROMPTS[1], top_p=0.5)
    assert not far(counts, nucleus)
    assert counts[nucleus == 0].sum() == 0


def test_it_takes_the_token_in_whose_share_the_number_falls():
    scores = torch.tensor([[0.25, 0.25, 0.0, 0.5]]).log().expand(6, 4)
    uniforms = torch.tensor([[0.0], [0.24], [0.25], [0.49], [0.5], [1 - 2**-53]], dtype=torch.float64)
    left = TakeToken(uniforms)(None, scores)
    assert left.argmax(-1).tolist() == [0, 0, 1, 1, 3, 3]  # never 2, which has no probability
    assert (left == 0).sum(-1).tolist() == [1] * 6
    assert left.isneginf().sum(-1).tolist() == [3] * 6


def test_temperature_0_takes_the_likeliest(policy):
    found = sampled(policy, all_ids(3, 2), temperature=0.0)
    for row, response in found.items():
        read = list(PROMPTS[row.problem])
        for token in response:
            assert token == chances(policy, read).argmax()
            read.append(token)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 12])
def test_responses_do_not_depend_on_the_batch(policy, batch_size):
    assert sampled(policy, all_ids(3, 4), batch_size=batch_size) == sampled(policy, all_ids(3, 4))


def test_responses_do_not_depend_on_what_was_sampled_before(policy):
    whole = sampled(policy, all_ids(3, 4))
    rows = [SampleId(2, 3), SampleId(0, 1), SampleId(2, 0)]
    assert sampled(policy, rows) == {row: whole[row] for row in rows}


def test_every_sample_problem_and_seed_has_its_own_random_numbers(policy):
    same_prompt = [PROMPTS[1]] * 3
    found = sampled(policy, all_ids(3, 4), same_prompt)
    assert len(set(map(tuple, found.values()))) > 9
    assert sampled(policy, all_ids(3, 4), same_prompt, seed=1) != found


def test_prompt_that_is_read_once_gives_what_reading_it_for_each_row_gives(policy):
    model, tokenizer = policy
    found = sampled(policy, all_ids(3, 2), temperature=0.0)
    for problem, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
        for number in range(2):
            response = found[SampleId(problem, number)]
            assert response == alone[: len(response)]


def test_prompt_is_read_once_for_all_of_its_rows(policy):
    model, _ = policy
    tokens = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    sampled(policy, [SampleId(2, number) for number in range(6)], max_new_tokens=1)
    hook.remove()
    assert tokens == [4, 6]  # all tokens of the prompt but the last, once; then the last one for each row


def test_settings_of_the_model_do_not_change_the_distribution(policy):
    model, _ = policy
    plain, own = sampled(policy, all_ids(3, 2)), model.generation_config
    changed = type(own)(
        **{**own.to_dict(), "repetition_penalty": 5.0, "top_k": 1, "temperature": 0.1, "min_length": 9}
    )
    model.generation_config = changed
    try:
        assert sampled(policy, all_ids(3, 2)) == plain
        assert model.generation_config is changed
    finally:
        model.generation_config = own


def test_response_ends_with_its_end_token(policy):
    found = sampled(policy, all_ids(3, 30), max_new_tokens=20)
    ended = [response for response in found.values() if 1 in response]
    assert len(ended) > 5
    assert all(response.index(1) == len(response) - 1 for response in ended)
    assert all(len(response) == 20 for response in found.values() if 1 not in response)


@pytest.mark.parametrize(("own", "ends"), [(5, {1, 5}), ([5, 6], {1, 5, 6}), ([1, 5], {1, 5}), (1, {1}), (None, {1})])
def test_response_ends_at_the_end_tokens_of_tokenizer_and_model_as_in_training(
    policy, dataset, tmp_path, monkeypatch, own, ends
):
    model, tokenizer = policy
    monkeypatch.setattr(model.generation_config, "eos_token_id", own)
    trainer = build_trainer(copy.deepcopy(model), dataset, tmp_path, plain=True)
    assert set(getattr(trainer, "eos_token_ids", ends)) == ends  # TRL's, where it has a name for them
    found = sampled(policy, all_ids(3, 30), max_new_tokens=20)
    assert {response[-1] for response in found.values() if len(response) < 20} == ends
    assert not any(ends & {*response[:-1]} for response in found.values())


def test_model_without_an_end_token_is_refused(policy, monkeypatch):
    model, tokenizer = policy
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither the model's generation_config nor the tokenizer defines the token"):
        sampled((model, tokenizer), all_ids(1, 1))


def test_long_prompts_come_first_and_equal_ones_together():
    prompts = [[1], [1, 2, 3], [1, 2], [4, 5, 6]]
    found = list(batches(prompts, all_ids(4, 2), 3))
    assert [[row.problem for row in batch] for batch in found] == [[1, 1, 3], [3, 2, 2], [0, 0]]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number >= 1, got 0"),
        ({"batch_size": -1}, "batch_size must be a whole number >= 1, got -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"temperature": -0.5}, "temperature must be a number >= 0, got -0.5"),
        ({"temperature": math.nan}, "temperature must be a number >= 0, got nan"),
        ({"temperature": math.inf}, "temperature must be a number >= 0, got inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
    ],
)
def test_wrong_value_is_refused(wrong, line):
    with pytest.raises(ValueError, match=line):
        Sampling(**wrong)
