"""The LM head of TRL with smaller tiles, and without tokens that get no gradient: the same outputs and gradients."""

import logging
import re

import pytest
import torch
from toy import distance, parameters
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer import utils

from trl_entropy import SeamError
from trl_entropy._seam import has_tiles, patched_head
from trl_entropy.commands.cli import main


kernel = pytest.importorskip("trl.kernels.chunked_logprob", reason="TRL < 1.15 has no tiles")


CPU = torch.device("cpu")


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
    assert has_tiles()
    own = kernel.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE
    with patched_head(CPU, small_tiles=True):
        assert kernel.TOKEN_CHUNK_SIZE == utils._CHUNKED_LOGPROB_CHUNK_SIZE == 1024
        for ours, its in zip(computed(model, ids), theirs, strict=True):
            assert distance(ours, its) < 1e-6  # float32: sums of another order
    assert own == (kernel.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)


@pytest.mark.parametrize(
    ("asked", "vocabulary", "use_cpu", "small", "said"),
    [
        (False, 22, True, False, None),
        (
            False,
            3000,
            True,
            False,
            "on a CPU, small_lm_head_tiles=true makes the LM head two to three times as fast",
        ),
        (False, 3000, False, False, None),
        (True, 3000, True, True, None),
        (True, 22, True, False, "small_lm_head_tiles does nothing here: .* a vocabulary above 1024, here 22,"),
        (True, 3000, False, False, "small_lm_head_tiles does nothing here: it needs a CPU"),
    ],
)
def test_tiles_are_small_where_it_is_asked_for_and_of_use(build, asked, vocabulary, use_cpu, small, said, caplog):
    trainer = build()
    trainer.model.config.vocab_size = vocabulary
    with caplog.at_level(logging.INFO, logger="trl_entropy"):
        trainer.args.use_cpu, trainer.args.small_lm_head_tiles = use_cpu, asked
        with trainer.seam.patched():
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
    with patched_head(CPU, skip_tokens=True):
        rows.clear()  # of the check
        ours = gradient()
    live = int((weights != 0).sum())
    assert rows == [live if live <= 0.7 * 147 else 147]
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()  # float32: sums of another order


def test_a_run_that_trains_few_tokens_is_the_same(run):
    few = {"token_weights": {"high_entropy": {"fraction": 0.2}}, "learning_rate": 0.3, "optim": "sgd"}
    whole = torch.cat([value.flatten() for value in parameters(run(**few)).values()])
    skipped = torch.cat([value.flatten() for value in parameters(run(**few, skip_lm_head_tokens=True)).values()])
    assert distance(skipped, whole) < 1e-5


def test_patches_are_gone_after_a_run(run, monkeypatch):
    head, seen = utils._ChunkedLogProbFunction, []

    def reward(completions, **kwargs):
        seen.append(utils._ChunkedLogProbFunction)
        return [0.0] * len(completions)

    run(reward_funcs=reward, skip_lm_head_tokens=True, max_steps=1)
    assert head not in seen
    assert utils._ChunkedLogProbFunction is head

    def fail(completions, **kwargs):
        raise RuntimeError("in a reward")

    with pytest.raises(RuntimeError, match="in a reward"):
        run(reward_funcs=fail, skip_lm_head_tokens=True, max_steps=1)
    assert utils._ChunkedLogProbFunction is head


class AnotherHead(kernel.ChunkedLogProbFunction):
    """A TRL that keeps one more number of each token where its backward pass does not look for one of each token."""

    @staticmethod
    def backward(ctx, *gradients):
        order = torch.arange(len(ctx.saved_tensors[0]))  # it takes all tokens to be there
        scale = 1 + order / 1000
        scaled = (None if one is None else one * scale for one in gradients[:2])
        return kernel.ChunkedLogProbFunction.backward(ctx, *scaled, *gradients[2:])


def test_head_with_another_gradient_is_refused(monkeypatch):
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", AnotherHead)
    refused = pytest.raises(SeamError, match="the gradient of this TRL's LM head changes by")
    with refused, patched_head(CPU, skip_tokens=True):
        pass
    assert utils._ChunkedLogProbFunction is AnotherHead


def test_check_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with patched_head(CPU, small_tiles=True, skip_tokens=True):
        assert torch.equal(torch.rand(2), expected)
