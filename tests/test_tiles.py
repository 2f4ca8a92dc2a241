"""The LM head of TRL with smaller tiles, and without tokens that get no gradient: the same outputs and gradients."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from toy import distance, parameters
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer import utils

from trl_entropy import _seam
from trl_entropy.commands.cli import main
from trl_entropy.commands.grpo import set_tiles


kernel = pytest.importorskip("trl.kernels.chunked_logprob", reason="TRL < 1.15 has no tiles")


@pytest.fixture(autouse=True)
def _tiles_of_trl(monkeypatch):
    """What a test sets holds for it alone."""
    monkeypatch.setattr(kernel, "TOKEN_CHUNK_SIZE", kernel.TOKEN_CHUNK_SIZE)
    for name in ("_CHUNKED_LOGPROB_CHUNK_SIZE", "_ChunkedLogProbFunction"):
        monkeypatch.setattr(utils, name, getattr(utils, name))


def head_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=3000, num_attention_heads=2, num_key_value_heads=1, **shape))
    utils.add_fused_lm_head(model, 0.8, False, outputs=("log_probs", "entropy"))
    return model


def computed(model, ids) -> list[torch.Tensor]:
    model.zero_grad()
    outputs = model(input_ids=ids, labels=ids, fused_lm_head=True)
    (outputs.log_probs.sum() + outputs.entropy.sum()).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return [outputs.log_probs.detach(), outputs.entropy.detach(), gradient]


def test_small_tiles_give_the_same():
    model = head_model()
    ids = torch.randint(3000, (3, 500))  # more rows, and more entries, than a tile has
    theirs = computed(model, ids)
    assert _seam.has_tiles()
    _seam.use_small_tiles()
    assert kernel.TOKEN_CHUNK_SIZE == utils._CHUNKED_LOGPROB_CHUNK_SIZE == 1024
    for ours, its in zip(computed(model, ids), theirs, strict=True):
        assert distance(ours, its) < 1e-6  # float32: sums of another order


@pytest.mark.parametrize(
    ("asked", "vocabulary", "use_cpu", "small", "said"),
    [
        (False, 22, True, False, None),
        (
            False,
            3000,
            True,
            False,
            "on a CPU, --small_lm_head_tiles true makes the LM head two to three times as fast",
        ),
        (False, 3000, False, False, None),
        (True, 3000, True, True, None),
        (True, 22, True, False, "small_lm_head_tiles does nothing here: .* a vocabulary above 1024, here 22,"),
        (True, 3000, False, False, "small_lm_head_tiles does nothing here: it is for a CPU"),
    ],
)
def test_tiles_are_small_where_it_is_asked_for_and_of_use(asked, vocabulary, use_cpu, small, said, caplog):
    model = SimpleNamespace(config=Qwen2Config(vocab_size=vocabulary))
    with caplog.at_level(logging.INFO, logger="trl_entropy"):
        set_tiles(asked, SimpleNamespace(model=model, args=SimpleNamespace(use_cpu=use_cpu)))
    assert (kernel.TOKEN_CHUNK_SIZE == 1024) is small
    assert re.search(said, caplog.text) if said else not caplog.text


def test_flag_of_the_tiles_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    size = ["--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "4"]
    size += ["--gradient_checkpointing", "false", "--small_lm_head_tiles", "true"]
    with caplog.at_level(logging.INFO, logger="trl_entropy"):
        main(["grpo", "--max_steps", "1", "--save_strategy", "no", "--report_to", "none", *size])
    assert "small_lm_head_tiles does nothing here" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("entropy", [False, True])
def test_tokens_without_a_gradient_are_left_out(monkeypatch, share, entropy):
    model, ids = head_model(), torch.randint(3000, (3, 50))
    weights = (torch.rand(3, 49) < share).float() * torch.randn(3, 49)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        outputs = model(input_ids=ids, labels=ids, fused_lm_head=True)
        values = outputs.log_probs + (outputs.entropy if entropy else 0.0)
        (values * weights).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    theirs, rows, whole = gradient(), [], utils._ChunkedLogProbFunction
    backward = whole.backward

    def counted(ctx, *gradients):
        rows.append(len(ctx.saved_tensors[0]))
        return backward(ctx, *gradients)

    monkeypatch.setattr(whole, "backward", staticmethod(counted))
    _seam.skip_lm_head_tokens()
    _seam.skip_lm_head_tokens()  # twice is once
    ours = gradient()
    live = int((weights != 0).sum())
    assert rows == [live if live <= 0.7 * 147 else 147]
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()  # float32: sums of another order


def test_a_run_that_trains_few_tokens_is_the_same(run):
    few = {"token_weights": {"high_entropy": {"fraction": 0.2}}, "learning_rate": 0.3, "optim": "sgd"}
    whole = torch.cat([value.flatten() for value in parameters(run(**few)).values()])
    skipped = torch.cat([value.flatten() for value in parameters(run(**few, skip_lm_head_tokens=True)).values()])
    assert hasattr(utils._ChunkedLogProbFunction, "of_all_tokens")
    assert distance(skipped, whole) < 1e-5
