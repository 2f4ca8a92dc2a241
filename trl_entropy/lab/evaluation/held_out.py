"""Two scores of a model in memory, by any reward."""

from collections.abc import Callable

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measures import pass_at_k
from .drawing import Policy, all_rows, batches
from .prompts import encode
from .sampling import Sampling


def held_out_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Dataset,
    reward: Callable,
    num_samples: int = 8,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """
    `avg@k` and unbiased `pass@k` at `k = num_samples`, over problems with `prompt` and `solution`.

    A sample is correct if its reward is 1. The caller's random state is left as it was.

    Args:
        batch_size (`int`, *optional*, defaults to `256`):
            Responses drawn at once.
    """
    sampling = Sampling(num_samples, temperature, 1.0, max_new_tokens, batch_size, seed)
    policy = Policy(model, tokenizer)
    prompts = encode(problems["prompt"], tokenizer, "plain")
    num_correct = [0] * len(prompts)
    with policy.evaluating():
        for batch in batches(prompts, all_rows(len(prompts), num_samples), batch_size):
            texts = tokenizer.batch_decode(policy.draw(prompts, batch, sampling), skip_special_tokens=True)
            solutions = [problems[row.problem]["solution"] for row in batch]
            for row, score in zip(batch, reward(completions=texts, solution=solutions), strict=True):
                num_correct[row.problem] += score == 1.0
    return {
        f"avg@{num_samples}": sum(num_correct) / (num_samples * len(num_correct)),
        f"pass@{num_samples}": sum(pass_at_k(num_samples, c, num_samples) for c in num_correct) / len(num_correct),
    }
