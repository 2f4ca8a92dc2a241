import random

import pytest
import torch
from toy import same
from transformers import AutoTokenizer

from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.data.splits import prompt_of, random_completion
from trl_entropy.lab import pretrain


PAD, EOS, BOXED, CLOSE, PLUS, EQUALS = range(6)
DIGIT = {digit: 6 + int(digit) for digit in "0123456789"}
LEFT_OUT = -100


@pytest.fixture(scope="module")
def tokenizer():
    return pretrain.make_tokenizer()


def trained(tokenizer, seed: int, steps: int = 3) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        return pretrain.pretrain(tokenizer, seed, steps).state_dict()


def solved(*numbers: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [(prompt_of(number), random_completion(number, rng)) for number in numbers]


def digits(text: str) -> list[int]:
    return [DIGIT[digit] for digit in text]


def test_tokens_are_characters_and_the_start_of_a_box(tokenizer):
    expected = [*digits("24"), EQUALS, BOXED, *digits("7"), PLUS, *digits("17"), CLOSE, EOS]
    assert tokenizer(r"24=\boxed{7+17}<eos>")["input_ids"] == expected
    assert len(tokenizer) == 16


def test_shipped_tokenizer_is_the_one_that_is_made(tokenizer):
    shipped = AutoTokenizer.from_pretrained(EMBEDDED_POLICY)
    assert type(shipped) is type(tokenizer)
    assert shipped.get_vocab() == tokenizer.get_vocab()
    text = r"124=\boxed{70+54}<eos>"
    assert shipped(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_labels_cover_the_completion_alone(tokenizer):
    batch = pretrain._batch(tokenizer, [("24=", r"\boxed{7+17}"), ("136=", r"\boxed{100+36}")])
    short = [BOXED, *digits("7"), PLUS, *digits("17"), CLOSE, EOS]  # 24=\boxed{7+17}
    long = [BOXED, *digits("100"), PLUS, *digits("36"), CLOSE, EOS]  # 136=\boxed{100+36}
    assert batch["input_ids"].tolist() == [
        [*digits("24"), EQUALS, *short, PAD, PAD, PAD],
        [*digits("136"), EQUALS, *long],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 10 + [0] * 3, [1] * 13]
    assert batch["labels"].tolist() == [
        [LEFT_OUT] * 3 + short + [LEFT_OUT] * 3,
        [LEFT_OUT] * 4 + long,
    ]


def test_loss_is_the_mean_over_the_labelled_tokens(tokenizer):
    with torch.random.fork_rng(devices=[]):
        model = pretrain.make_model(tokenizer, seed=0).eval()
    batch = pretrain._batch(tokenizer, solved(24, 136))
    with torch.no_grad():
        outputs = model(**batch)
    logps = outputs.logits.log_softmax(-1)
    losses = [
        -logps[row, position - 1, batch["labels"][row, position]]
        for row, position in (batch["labels"] != LEFT_OUT).nonzero().tolist()
    ]
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean(), rtol=1e-5, atol=0.0)


def test_model_has_the_size_that_it_should_have(tokenizer):
    with torch.random.fork_rng(devices=[]):
        model = pretrain.make_model(tokenizer, seed=0)
    attention = 4 * 128 * 128 + 3 * 128  # four matrices, and Qwen2 has biases on three
    layer = attention + 3 * 128 * 256 + 2 * 128
    assert model.num_parameters() == 16 * 128 + 3 * layer + 128


def test_training_follows_the_seed(tokenizer):
    first = trained(tokenizer, seed=0)
    random.seed(5)
    torch.manual_seed(5)
    assert same(trained(tokenizer, seed=0), first)
    assert not same(trained(tokenizer, seed=1), first)


def test_training_learns(tokenizer):
    def loss(state: dict[str, torch.Tensor]) -> float:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = pretrain.make_model(tokenizer, seed=0)
            model.load_state_dict(state)
            return model(**pretrain._batch(tokenizer, solved(*range(20, 180, 5)))).loss.item()

    assert loss(trained(tokenizer, seed=0, steps=12)) < loss(trained(tokenizer, seed=0, steps=0)) - 0.1


def test_main_writes_a_policy_in_half_precision(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrain, "pretrain", lambda tokenizer, seed: pretrain.make_model(tokenizer, seed))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr("sys.argv", ["pretrain", "--output_dir", str(tmp_path), "--seed", "7"])
    with torch.random.fork_rng(devices=[]):
        pretrain.main()
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in EMBEDDED_POLICY.iterdir()}
    written, shipped = (
        pretrain.Qwen2ForCausalLM.from_pretrained(folder, dtype="auto") for folder in (tmp_path, EMBEDDED_POLICY)
    )
    assert written.dtype == shipped.dtype == torch.float16
    assert {name: tensor.shape for name, tensor in written.state_dict().items()} == {
        name: tensor.shape for name, tensor in shipped.state_dict().items()
    }
    assert (tmp_path / "model.safetensors").stat().st_size == (EMBEDDED_POLICY / "model.safetensors").stat().st_size
