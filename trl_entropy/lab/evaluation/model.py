"""Load a model by name, as a whole or as an adapter on its base, and encode its prompts."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file, has_file

from ...checks import unknown
from ...data.files import first_line


TEMPLATES = ("auto", "chat", "plain", "qwen-math")
# from the evaluation of Qwen2.5-Math, https://huggingface.co/papers/2409.12122
STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."
HEAD = 2**20  # bytes at either end of a weights file that identify it


class Source(NamedTuple):
    """Where a model is, in a folder or on the hub."""

    path: str
    revision: str | None = None
    base: "Source | None" = None  # if this is an adapter


def source_of(path: str, revision: str | None = None) -> Source:
    """
    The model or adapter in a folder or on the hub.

    Raises `ValueError` with one line if there is neither, or if the adapter has no base or does not consist of
    weights.
    """
    try:
        if find_adapter_config_file(path, revision=revision) is None:
            return Source(path, revision)
        config = PeftConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the model {path!r} cannot be loaded: {first_line(error)}") from error
    if not config.base_model_name_or_path:
        raise ValueError(f"the adapter {path!r} does not name its base: set base_model_name_or_path in its config")
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ValueError(
            f"the adapter {path!r} does not consist of weights, but is {config.peft_type.value}: it cannot be merged"
        )
    return Source(path, revision, Source(config.base_model_name_or_path, config.revision))


def tokenizer_of(source: Source) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or the base's if an adapter has none; raises as [`source_of`] does."""
    path, revision, base = source
    if base is not None and not has_file(path, "tokenizer_config.json", revision=revision):
        path, revision, _ = base
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer of {path!r} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def context_of(source: Source) -> int | None:
    """Maximum number of tokens that the model reads; None if its config does not say. Raises as [`source_of`] does."""
    path, revision, _ = source.base or source
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        which = f"the base {path!r} of the adapter {source.path!r}" if source.base else f"the model {path!r}"
        raise ValueError(f"{which} cannot be loaded: {first_line(error)}") from error
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load(source: Source, dtype: str) -> PreTrainedModel:
    """
    Load the model; an adapter is merged into its base, which then generates faster.

    An adapter on the embeddings or the head is not merged: the two may share weights, so that a merge into one would
    change the other.
    """
    path, revision, _ = source.base or source
    try:
        model = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=getattr(torch, dtype))
        if source.base is None:
            return model
        # with peft: transformers' own adapter loading leaves DoRA's magnitudes random
        model = PeftModel.from_pretrained(model, source.path, revision=source.revision)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"the weights of {source.path!r} cannot be loaded: {first_line(error)}") from error
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    return model.get_base_model() if any(isinstance(end, BaseTunerLayer) for end in ends) else model.merge_and_unload()


def weights_of(source: Source) -> str | None:
    """A digest of a folder's weights, from their sizes and both ends; None for a model on the hub."""
    folders = [Path(part.path) for part in (source, source.base) if part is not None and os.path.isdir(part.path)]
    files = [file for folder in folders for file in sorted(folder.glob("*"))]
    weights = [file for file in files if file.suffix in (".safetensors", ".bin")]
    return digest(part for file in weights for part in _ends(file)) if folders else None


def digest(parts: Iterable[bytes]) -> str:
    """The first characters of a hash."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def _ends(file: Path) -> Iterable[bytes]:
    yield f"{file.name} {file.stat().st_size} ".encode()
    with open(file, "rb") as content:
        yield content.read(HEAD)
        content.seek(max(0, file.stat().st_size - HEAD))
        yield content.read(HEAD)


# Prompts


def resolve_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    One of [`TEMPLATES`] except "auto", which becomes "qwen-math" for a tokenizer with a chat template, else "plain".

    Raises `ValueError` for an unknown template, or one that needs a chat template that the tokenizer lacks.
    """
    if template not in TEMPLATES:
        raise unknown("template", template, TEMPLATES)
    if template == "auto":
        return "qwen-math" if tokenizer.chat_template else "plain"
    if template != "plain" and not tokenizer.chat_template:
        raise ValueError(f"template={template!r} needs a tokenizer with a chat template, but this one has none")
    return template


def encode(
    prompts: Sequence[str | list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase, template: str, **chat_kwargs
) -> list[list[int]]:
    """
    Encode each prompt as tokens.

    Args:
        prompts (`Sequence[str]` or `Sequence[list[dict[str, str]]]`):
            Problems, or conversations, which go through the chat template unchanged.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer of the model.
        template (`str`):
            How to present a problem: "plain" leaves it unchanged, "chat" makes it a user message, "qwen-math" adds the
            system message of the Qwen2.5-Math evaluation before that.
        **chat_kwargs:
            Arguments for the chat template.

    Raises `ValueError` for a conversation without a chat template.
    """
    encoded = []
    for prompt in prompts:
        if isinstance(prompt, str) and template != "plain":
            system = [{"role": "system", "content": STEP_BY_STEP}] if template == "qwen-math" else []
            prompt = [*system, {"role": "user", "content": prompt}]
        is_text = isinstance(prompt, str)
        if not is_text and not tokenizer.chat_template:
            raise ValueError("the prompts are conversations, but the tokenizer has no chat template: use text prompts")
        text = (
            prompt
            if is_text
            else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **chat_kwargs)
        )
        # a chat template has already written the special tokens
        encoded.append(tokenizer(text, add_special_tokens=is_text)["input_ids"])
    return encoded
