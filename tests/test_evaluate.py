import random

import pytest
import torch
from datasets import Dataset
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_entropy.evaluate import held_out_scores


TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
)


@pytest.fixture
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def model(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir)


class Answering:
    """Looks like a model; the i-th sample of a prompt is the i-th answer given for its text."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, answers: dict[str, list[str]]):
        self.tokenizer, self.answers, self.training, self.calls, self.modes = tokenizer, answers, True, [], []

    def eval(self):
        self.training = False

    def train(self, mode: bool):
        self.training = mode

    def generate(self, input_ids, attention_mask, num_return_sequences, **kwargs):
        texts = [self.tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(input_ids, attention_mask, strict=True)]
        assert attention_mask[:, -1].all()  # padded on the left
        self.calls.append({"texts": texts, **kwargs})
        self.modes.append((self.training, torch.is_grad_enabled()))
        answers = [answer for text in texts for answer in self.answers[text]]
        assert len(answers) == len(texts) * num_return_sequences
        ids = self.tokenizer([f"{answer}<eos>" for answer in answers], return_tensors="pt", padding=True)["input_ids"]
        return torch.cat([input_ids.repeat_interleave(num_return_sequences, 0), ids], dim=1)


def equal(completions, solution, **kwargs) -> list[float | None]:
    """1.0 for the solution itself, 0.5 for its first character, None for an empty solution."""
    return [
        None if not s else 1.0 if c == s else 0.5 if c == s[0] else 0.0
        for c, s in zip(completions, solution, strict=True)
    ]


def problems(*rows: tuple) -> Dataset:
    return Dataset.from_list([{"prompt": prompt, "solution": solution} for prompt, solution in rows])


FIVE = problems(("1+1=", "2"), ("10+2=", "12"), ("3=", "3"), ("4=", "4"), ("5=", ""))
ANSWERS = {
    "1+1=": ["2", "2", "2", "2"],
    "10+2=": ["12", "13", "1", "2"],  # "1" is half right, which does not count
    "3=": ["4", "5", "6", "33"],
    "4=": ["-4", "4", "5", "4"],
    "5=": ["5", "5", "5", "5"],  # has no solution
}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_scores_of_known_answers(tokenizer, batch_size):
    model = Answering(tokenizer, ANSWERS)
    scores = held_out_scores(model, tokenizer, FIVE, equal, num_samples=4, batch_size=batch_size)
    # 4 + 1 + 0 + 2 + 0 of 20 samples, and 3 of 5 problems solved at least once
    assert scores == {"avg@4": 7 / 20, "pass@4": 3 / 5}
    assert [text for call in model.calls for text in call["texts"]] == list(ANSWERS)
    assert {len(call["texts"]) for call in model.calls[:-1]} <= {batch_size}


def test_scores_of_one_sample(tokenizer):
    model = Answering(tokenizer, {text: answers[:1] for text, answers in ANSWERS.items()})
    assert held_out_scores(model, tokenizer, FIVE, equal, num_samples=1) == {"avg@1": 2 / 5, "pass@1": 2 / 5}


def test_sampling_is_the_plain_one_at_the_given_temperature(tokenizer):
    model = Answering(tokenizer, ANSWERS)
    held_out_scores(model, tokenizer, FIVE, equal, num_samples=4, max_new_tokens=7, temperature=0.6)
    (call,) = model.calls
    expected = {"do_sample": True, "temperature": 0.6, "top_k": 0, "top_p": 1.0, "max_new_tokens": 7}
    assert {name: call[name] for name in expected} == expected
    assert call["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_model_is_restored(tokenizer, training):
    model = Answering(tokenizer, ANSWERS)
    model.training = training
    held_out_scores(model, tokenizer, FIVE, equal, num_samples=4)
    assert model.modes == [(False, False)]  # sampled in evaluation mode and without gradients
    assert model.training is training


def test_real_model_is_sampled_without_touching_the_random_state(model, tokenizer):
    seen = []

    def record(completions, solution, **kwargs):
        seen.append(completions)
        return [0.0] * len(completions)

    def sample(seed: int, **settings) -> list[str]:
        held_out_scores(model, tokenizer, FIVE, record, num_samples=4, max_new_tokens=6, seed=seed, **settings)
        return seen.pop()

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
    assert len(set(first)) > 10
    assert max(map(len, first)) <= 6
    coldest = sample(seed=0, temperature=1e-4)  # greedy: the four samples of a problem are alike
    assert all(len(set(coldest[i : i + 4])) == 1 for i in range(0, 20, 4))


def test_sampling_without_a_fork_would_touch_the_random_state(model, tokenizer):
    state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        model.generate(
            **tokenizer("1", return_tensors="pt", return_token_type_ids=False), do_sample=True, max_length=4
        )
        assert not torch.equal(torch.get_rng_state(), state)


def test_conversations_go_through_the_chat_template(tokenizer):
    tokenizer.chat_template = TEMPLATE
    conversations = problems(
        ([{"role": "system", "content": "add"}, {"role": "user", "content": "1+1"}], "2"),
        ([{"role": "user", "content": "3"}], "3"),
    )
    model = Answering(tokenizer, {"add1+1=": ["2", "3"], "3=": ["4", "5"]})
    scores = held_out_scores(model, tokenizer, conversations, equal, num_samples=2)
    assert scores == {"avg@2": 1 / 4, "pass@2": 1 / 2}


def test_special_tokens_are_left_to_the_chat_template(tokenizer):
    tokenizer.chat_template = "<eos>" + TEMPLATE
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    seen = []

    def generate(input_ids, num_return_sequences, **kwargs):
        seen.append(tokenizer.decode(input_ids[0]))
        return input_ids

    model = Answering(tokenizer, {})
    model.generate = generate
    for prompt in ("3=", [{"role": "user", "content": "3"}]):
        held_out_scores(model, tokenizer, problems((prompt, "3")), equal, num_samples=1)
    assert seen == ["<eos>3=", "<eos>3="]
