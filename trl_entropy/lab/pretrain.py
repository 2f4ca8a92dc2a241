"""
Remake the embedded policy: `python -m trl_entropy.lab.pretrain --output_dir DIR`, about a minute on an idle core.

Training stops early on purpose: the policy then solves about a third of the problems, in many ways.
"""

import argparse
import random
from collections.abc import Callable, Sequence

import torch
from tokenizers import AddedToken
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from ..data.splits import known_numbers, prompt_of, random_completion
from ..written import check_new_folder, written


BOXED = "\\boxed{"
VOCABULARY = ["<pad>", "<eos>", BOXED, "}", "+", "=", *"0123456789"]
CONTEXT = 64  # tokens
STEPS, BATCH_SIZE, LEARNING_RATE, WARMUP_STEPS = 1080, 64, 1e-3, 50
IGNORED = -100  # the label that the cross-entropy ignores
Solved = tuple[str, str]  # a prompt and a completion


def main() -> None:
    """Train the policy, and save it in half precision with its tokenizer."""
    parser = argparse.ArgumentParser(description="Remake the embedded policy.")
    parser.add_argument("--output_dir", required=True, help="new folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        check_new_folder(arguments.output_dir)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # the model is too small to benefit from more
    tokenizer = make_tokenizer()
    model = pretrain(tokenizer, arguments.seed)
    with written(arguments.output_dir) as part:
        model.to(torch.float16).save_pretrained(part)
        tokenizer.save_pretrained(part)


def make_tokenizer(
    words: Sequence[str] = (BOXED,), vocabulary: Sequence[str] = VOCABULARY, context: int = CONTEXT
) -> Qwen2Tokenizer:
    r"""One token per character, except for `words`; Qwen2's own class, which AutoTokenizer requires."""
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token=None,
        padding_side="left",
        model_max_length=context,
    )
    # not special, so that decoding keeps them
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    return tokenizer


def make_model(tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2ForCausalLM:
    """An untrained Qwen2 with half a million parameters."""
    torch.manual_seed(seed)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        **ids,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, **ids)
    return model


def pretrain(tokenizer: Qwen2Tokenizer, seed: int, steps: int = STEPS) -> Qwen2ForCausalLM:
    """Supervised training on freshly sampled solutions."""
    rng = random.Random(seed)
    numbers = known_numbers()

    def sample() -> list[Solved]:
        return [(prompt_of(number), random_completion(number, rng)) for number in rng.choices(numbers, k=BATCH_SIZE)]

    model = make_model(tokenizer, seed)
    return supervise(model, tokenizer, sample, steps, LEARNING_RATE, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))


def supervise(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    sample: Callable[[], list[Solved]],
    steps: int,
    learning_rate: float,
    scale: Callable[[int], float],
) -> Qwen2ForCausalLM:
    """
    Train a policy on what `sample` returns, by the cross-entropy of the completions.

    Args:
        model (`Qwen2ForCausalLM`):
            The policy; it is changed in place.
        tokenizer (`Qwen2Tokenizer`):
            Its tokenizer, which splits a prompt into characters.
        sample (`Callable`):
            Returns the prompts and completions of one batch.
        steps (`int`):
            Optimizer steps.
        learning_rate (`float`):
            AdamW's learning rate.
        scale (`Callable`):
            Returns a step's factor on the learning rate.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    for _ in range(steps):
        model(**_batch(tokenizer, sample())).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return model


def _batch(tokenizer: Qwen2Tokenizer, solved: list[Solved]) -> dict[str, torch.Tensor]:
    texts = [prompt + completion + tokenizer.eos_token for prompt, completion in solved]
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="right"))
    positions = torch.arange(batch["input_ids"].shape[1])
    lengths = torch.tensor([len(prompt) for prompt, _ in solved])  # a prompt has one token per character
    outside = (batch["attention_mask"] == 0) | (positions < lengths[:, None])
    batch["labels"] = batch["input_ids"].masked_fill(outside, IGNORED)
    return batch


if __name__ == "__main__":
    main()
