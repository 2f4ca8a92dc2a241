"""Floor 5: sample held-out problems and grade them."""

from collections.abc import Callable

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .measures import pass_at_k


@torch.no_grad()
def held_out_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    reward: Callable,
    num_samples: int = 8,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[str, float]:
    """
    `avg@k` and unbiased `pass@k` at `k = num_samples`, over problems with `prompt` and `solution`.

    Batches of `batch_size` problems; the caller's random state is left as it was.
    """
    num_correct = []
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(problems), batch_size):
            batch = problems[start : start + batch_size]
            completions = _sample(model, tokenizer, batch["prompt"], num_samples, max_new_tokens, temperature)
            solutions = [solution for solution in batch["solution"] for _ in range(num_samples)]
            correct = [score == 1.0 for score in reward(completions=completions, solution=solutions)]
            num_correct += [sum(correct[i : i + num_samples]) for i in range(0, len(correct), num_samples)]
    model.train(was_training)
    return {
        f"avg@{num_samples}": sum(num_correct) / (num_samples * len(num_correct)),
        f"pass@{num_samples}": sum(pass_at_k(num_samples, c, num_samples) for c in num_correct) / len(num_correct),
    }


def _sample(model, tokenizer, prompts: list, num_samples: int, max_new_tokens: int, temperature: float) -> list[str]:
    texts = [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    # A chat template has written the special tokens already
    inputs = tokenizer(
        texts,
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=isinstance(prompts[0], str),
        return_token_type_ids=False,
    ).to(model.device)
    outputs = model.generate(
        **inputs,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=num_samples,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
