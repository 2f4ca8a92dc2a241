"""A random tiny model, its tokenizer and a dataset, all built here: no test needs a hub or a GPU."""

import copy
import functools
import gc
import importlib.metadata
import os
import shutil


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
import trl.trainer.grpo_trainer
import trl.trainer.rloo_trainer
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toy import build_trainer, sums
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from trl_entropy.data import EMBEDDED_POLICY


torch.set_num_threads(1)

# accelerate reads what packages say of themselves anew for each trainer
importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)

CHARACTERS = "0123456789+-= abcdef"
TINY = "tiny-model"
loaded = {}


def loaded_once(load):
    """Each trainer gets a copy of the tiny model, which is read from its folder once."""

    @functools.wraps(load)
    def copied(folder, *positional, **named):
        if TINY not in str(folder):
            return load(folder, *positional, **named)
        key = str((folder, positional, sorted(named.items())))
        if key not in loaded:
            loaded[key] = load(folder, *positional, **named)
        return copy.deepcopy(loaded[key])

    return copied


for module in (trl.trainer.grpo_trainer, trl.trainer.rloo_trainer):
    module.create_model_from_path = loaded_once(module.create_model_from_path)


def pytest_collection_finish():
    gc.freeze()  # accelerate collects garbage after each training: not among all that was imported


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> str:
    """A folder with a random two-layer Qwen2 of 16 dimensions over 22 tokens."""
    folder = tmp_path_factory.mktemp(TINY)
    vocabulary = {"<pad>": 0, "<eos>": 1, **{character: i + 2 for i, character in enumerate(CHARACTERS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def chatty(tmp_path_factory) -> str:
    """A folder with the config and the tokenizer of the embedded policy, and a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    shutil.copytree(EMBEDDED_POLICY, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Sixteen prompts with a number as solution."""
    return sums()


@pytest.fixture
def build(model_dir, dataset, tmp_path):
    """A trainer that has not trained: `build(**arguments)`, or `build(plain=True, ...)` for TRL's own."""

    def make(output_dir=tmp_path, **arguments):
        return build_trainer(model_dir, dataset, output_dir, **arguments)

    return make


@pytest.fixture
def run(build):
    """Train for a few steps and return the trainer: `run(**arguments)`, or `run(plain=True, ...)` for TRL's own."""

    def train(resume=None, **arguments):
        trainer = build(**arguments)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train
