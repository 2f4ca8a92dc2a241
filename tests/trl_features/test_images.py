"""Problems with images, on a random Llava of a few thousand parameters."""

import pytest
import torch
from alone import (
    EVERYTHING,
    WEIGHTS,
    as_trl,
    assert_everything_acts,
    assert_measured_of_policy,
    assert_trained_as_trl,
    training,
)
from datasets import Dataset, Features, IterableDataset, Value
from datasets import Image as ImageFeature
from PIL import Image
from toy import build_trainer, logged, parameters
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
)


SIDE, PATCH = 8, 4  # pixels
CHAT = """\
{%- for message in messages -%}
{%- for part in message.content -%}
{{ "<image>" if part.type == "image" else part.text }}
{%- endfor -%}
{%- endfor -%}
{{ "=" if add_generation_prompt else "" }}"""


@pytest.fixture(scope="module")
def llava_dir(model_dir, tmp_path_factory) -> str:
    """A folder with a Llava that has the tokens of the tiny model, and one for images."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    widths = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = Qwen2Config(
        **widths,
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    vision = CLIPVisionConfig(**widths, image_size=SIDE, patch_size=PATCH, projection_dim=16)
    config = LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def pictures(column: str) -> Dataset | IterableDataset:
    """Sixteen problems with an image each: in this column, `inside` of the prompt, or in a `stream`."""
    shades = [Image.new("RGB", (SIDE, SIDE), (16 * number, 255 - 16 * number, 90)) for number in range(16)]
    if column == "inside":
        parts = [[{"type": "image", "image": shade}, {"type": "text", "text": "4="}] for shade in shades]
        parts = [[{"image": None, "text": None, **part} for part in of_one] for of_one in parts]
        part = {"type": Value("string"), "image": ImageFeature(), "text": Value("string")}
        message = {"role": Value("string"), "content": [part]}
        prompts = [[{"role": "user", "content": of_one}] for of_one in parts]
        return Dataset.from_dict({"prompt": prompts}, features=Features({"prompt": [message]}))
    prompts = [[{"role": "user", "content": f"{number}"}] for number in range(16)]
    if column == "images":
        return Dataset.from_dict({"prompt": prompts, "images": [[shade] for shade in shades]})
    problems = Dataset.from_dict({"prompt": prompts, "image": shades})
    return problems.to_iterable_dataset() if column == "stream" else problems


@pytest.fixture
def build_llava(llava_dir, tmp_path):
    def make(column="image", **settings):
        return build_trainer(llava_dir, pictures(column), tmp_path, **{"reward_funcs": odd_sum, **settings})

    return make


@pytest.fixture
def run_llava(build_llava):
    return training(build_llava)


def odd_sum(completion_ids, **kwargs) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


@as_trl
@pytest.mark.parametrize("column", ["image", "inside"])
def test_training_with_neutral_settings_is_that_of_trl(run_llava, column, settings, neutral):
    trl, ours = run_llava(column, plain=True, **settings), run_llava(column, **settings, **neutral)
    assert_trained_as_trl(trl, ours)
    assert "pixel_values" in ours._buffered_inputs[0]


def test_everything_acts(run_llava, build_llava):
    splits = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert_everything_acts(run_llava("images", **EVERYTHING, **splits), parameters(build_llava()))


def test_measures_are_of_the_policy_that_sees_the_images(run_llava):
    settings = {"entropy_measures": "full", "temperature": 0.8, "learning_rate": 0.0, "max_steps": 1}
    trainer = run_llava(**WEIGHTS, **settings)
    assert_measured_of_policy(trainer)
    assert logged(trainer, "authority/samples_per_context") == []  # one text may stand beside other images
    inputs = trainer._buffered_inputs[0]
    inputs["pixel_values"] = -inputs["pixel_values"]
    with pytest.raises(AssertionError):
        assert_measured_of_policy(trainer)


# Refusals


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        *(("image", "dynamic_sampling"), ("images", "perplexity_window"), ("images", "prompt_temperature")),
        # what no column says is seen at the first rollout
        *(("inside", "dynamic_sampling"), ("inside", "prompt_temperature"), ("stream", "prompt_temperature")),
    ],
)
def test_rollout_rules_are_refused(run_llava, column, rule):
    with pytest.raises(
        ValueError,
        match=rf"^rollout_rules \({rule}\) only work on text problems, and these have images: drop the rules$",
    ):
        run_llava(column, rollout_rules={rule: {}})


@pytest.mark.parametrize("flag", ["fast_step", "trim_padding", "sort_by_length", "skip_zero_advantage"])
def test_smaller_steps_are_refused(build_llava, flag):
    with pytest.raises(
        ValueError, match="^trim_padding, sort_by_length and skip_zero_advantage only work on text.*: drop"
    ):
        build_llava(**{flag: True})
