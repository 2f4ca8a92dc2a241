"""The shape of a model, from its config alone."""

from dataclasses import dataclass

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)


def _qwen2(d: int, layers: int, heads: int, kv: int, ff: int, tied: bool, vocabulary: int = 151936) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=d,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        tie_word_embeddings=tied,
    )


# The models of the recipes, so that a plan needs no hub; from their config.json
QWEN2_HALF = _qwen2(896, 24, 14, 2, 4864, tied=True)
QWEN2_ONE_AND_A_HALF = _qwen2(1536, 28, 12, 2, 8960, tied=True)
QWEN2_R1 = _qwen2(1536, 28, 12, 2, 8960, tied=False)
QWEN2_SEVEN = _qwen2(3584, 28, 28, 4, 18944, tied=False, vocabulary=152064)
KNOWN: dict[str, PreTrainedConfig] = {
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN2_HALF,
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN2_ONE_AND_A_HALF,
    "Qwen/Qwen2.5-Math-1.5B": QWEN2_ONE_AND_A_HALF,
    "Qwen/Qwen2.5-Math-7B": QWEN2_SEVEN,
    "Qwen/Qwen2.5-7B-Instruct": QWEN2_SEVEN,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": QWEN2_R1,
    "agentica-org/DeepScaleR-1.5B-Preview": QWEN2_R1,
    "Qwen/Qwen3-8B-Base": Qwen3Config(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    ),
}


@dataclass(frozen=True)
class Shape:
    """
    What decides memory and time of a causal language model.

    Args:
        parameters (`int`): all of them, a tied head once.
        backbone (`int`): those that every token is multiplied by, without embeddings and LM head.
        layers, hidden, intermediate, vocabulary (`int`): the usual.
        key_values (`int`): numbers that a token leaves in the key-value cache of one layer.
    """

    parameters: int
    backbone: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    key_values: int


def config_of(name: str, revision: str | None = None) -> PreTrainedConfig:
    """
    The config of a model: one of the recipes' by its name, else from a folder or the hub.

    Raises `ValueError` if it is in none of these.
    """
    if name in KNOWN:
        return KNOWN[name]
    try:
        return AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"the config of model {name!r} cannot be read ({why}). Known without a hub: {', '.join(KNOWN)}"
        ) from error


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model itself, without its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape of a model."""
    model = skeleton(config)
    text = config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    outside = embedding.numel() + (0 if head is embedding else head.numel())
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        parameters=parameters,
        backbone=parameters - outside,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        key_values=2 * text.num_key_value_heads * head_size,
    )
