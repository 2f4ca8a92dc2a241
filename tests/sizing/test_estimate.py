"""Memory and time against numbers worked out by hand."""

from dataclasses import replace

import pytest

from trl_entropy.sizing.estimate import SHARDINGS, Setup, memory, peak, step_time
from trl_entropy.sizing.hardware import GPU, GPUS
from trl_entropy.sizing.shapes import KNOWN, Shape, config_of, shape_of


SHAPE = Shape(
    parameters=1000, backbone=800, layers=2, hidden=10, intermediate=30, vocabulary=20, key_values=4
)  # head and embedding are one: 20 x 10
SETUP = Setup(
    gpus=4,
    sharding="none",
    weight_bytes=4,
    trained=1000,
    reference=False,
    checkpointing=False,
    rows=3,
    accumulation=2,
    generation_rows=12,
    updates=2,
    prompt_tokens=5,
    completion_tokens=7,
    forwards=1,
)
CHIP = GPU(memory=1e6, flops=1e4, bandwidth=1e4)


def amounts(**changes) -> dict[str, float]:
    return {line.name: line.amount for line in memory(SHAPE, replace(SETUP, **changes), CHIP)}


def test_memory_by_hand():
    tokens = 3 * 12
    assert amounts() == {
        "weights": 4000,
        "gradients": 4000,
        "optimizer": 8000,
        "activations": 2 * 2 * tokens * (10 * 10 + 3 * 30),
        "LM head": 2 * tokens * 20 + 6 * 20 * 10,
        "key-value cache": 2 * 2 * 4 * 12 * 12,
    }


def test_checkpointing_keeps_a_state_for_each_layer_and_one_layer():
    tokens = 3 * 12
    assert amounts(checkpointing=True)["activations"] == 2 * 2 * tokens * 10 + 2 * tokens * (10 * 10 + 3 * 30)


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimizer"),
    [("none", 4000, 4000, 8000), ("zero2", 4000, 1000, 2000), ("zero3", 1000, 1000, 2000), ("fsdp", 1000, 1000, 2000)],
)
def test_what_is_shared(sharding, weights, gradients, optimizer):
    found = amounts(sharding=sharding)
    assert [found[name] for name in ("weights", "gradients", "optimizer")] == [weights, gradients, optimizer]
    assert found.get("gathered layer") == (800 if weights == 1000 else None)
    assert found.get("weights to sample with") == (4000 if sharding == "zero3" else None)


def test_reference_and_vllm_have_a_line_each():
    found = amounts(reference=True, vllm_share=0.25)
    assert found["reference model"] == 4000
    assert found["vLLM"] == 0.25e6
    assert "key-value cache" not in found


def test_peak_is_what_stays_and_the_larger_of_training_and_sampling():
    lines = memory(SHAPE, SETUP, CHIP)
    by_name = {line.name: line.amount for line in lines}
    training = by_name["activations"] + by_name["LM head"] + by_name["gradients"]
    assert training > by_name["key-value cache"]
    assert peak(lines) == 4000 + 8000 + training
    longer = memory(SHAPE, replace(SETUP, generation_rows=1000), CHIP)
    assert peak(longer) == 4000 + 8000 + 2 * 2 * 4 * 1000 * 12


def test_time_by_hand():
    times = {line.name: line.amount for line in step_time(SHAPE, SETUP, CHIP)}
    parameters = 800 + 20 * 10
    cache = 2 * 2 * 4 * 12 * (5 + 3.5)
    reading = 7 * (2 * parameters + cache) / (0.6 * 1e4)
    computing = 2 * parameters * 12 * 12 / (0.4 * 1e4)
    assert computing > reading
    assert times["sampling"] == pytest.approx(computing / 2)
    assert times["training"] == pytest.approx(6 * parameters * 6 * 12 / (0.4 * 1e4))
    assert times["log-probs"] == pytest.approx(2 * parameters * 6 * 12 / (0.4 * 1e4))


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("more", ["rows", "prompt_tokens", "completion_tokens", "weight_bytes"])
def test_more_needs_more(sharding, more):
    setup = replace(SETUP, sharding=sharding)
    larger = replace(setup, **{more: 2 * getattr(setup, more)})
    assert peak(memory(SHAPE, larger, CHIP)) > peak(memory(SHAPE, setup, CHIP))


# Shapes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as safetensors of the hub count them
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("agentica-org/DeepScaleR-1.5B-Preview", 1_777_088_000),
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("Qwen/Qwen3-8B-Base", 8_190_735_360),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
    ],
)
def test_shapes_of_known_models_have_their_parameters(name, parameters):
    shape = shape_of(config_of(name))
    assert shape.parameters == parameters
    embeddings = 1 if config_of(name).tie_word_embeddings else 2
    assert shape.backbone == parameters - embeddings * shape.vocabulary * shape.hidden


def test_shape_of_a_folder(model_dir):
    shape = shape_of(config_of(model_dir))
    # one head of 8 dimensions for keys and values
    assert (shape.layers, shape.hidden, shape.vocabulary, shape.key_values) == (2, 16, 22, 16)


def test_unknown_model_is_named():
    with pytest.raises(
        ValueError, match=r"the config of model 'nobody/nothing' cannot be read \(.*Known without a hub: "
    ):
        config_of("nobody/nothing")


def test_every_gpu_is_in_proportion():
    for gpu in GPUS.values():
        assert 1e10 < gpu.memory < 1e12 < gpu.flops
        assert gpu.bandwidth < gpu.flops / 50
    assert len(KNOWN) >= 8
