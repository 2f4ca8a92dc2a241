"""Sample responses with transformers or vLLM; each has its own random numbers, whatever else is in the batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ...checks import check_whole_number


class SampleId(NamedTuple):
    """One sample of one problem, both counted from 0."""

    problem: int
    sample: int


@dataclass(frozen=True)
class Sampling:
    """
    The settings of sampling.

    Args:
        num_samples (`int`, *optional*, defaults to `8`):
            Number of responses per problem.
        temperature (`float`, *optional*, defaults to `1.0`):
            Divisor of the logits; 0 takes the likeliest token.
        top_p (`float`, *optional*, defaults to `1.0`):
            Total probability of the likeliest tokens to sample from.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Number of tokens after which a response is cut.
        batch_size (`int`, *optional*, defaults to `64`):
            Number of responses to sample at once.
        seed (`int`, *optional*, defaults to `0`):
            Together with the numbers of problem and sample, it is the seed of a response's random numbers.

    Raises `ValueError` for a value out of range.
    """

    num_samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        for name in ("num_samples", "max_new_tokens", "batch_size"):
            check_whole_number(name, getattr(self, name))
        check_whole_number("seed", self.seed, 0)
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a number >= 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")


@dataclass(frozen=True)
class Policy:
    """
    A model that scores responses, and the engine that samples them.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Scores responses, and samples them unless another engine does.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        engine (`Callable`, *optional*):
            `engine(prompts, ids, sampling)` returns the tokens of each response; by default [`sample`] with the model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    engine: Callable[[Sequence[list[int]], Sequence[SampleId], Sampling], list[list[int]]] | None = None

    def sample(self, prompts: Sequence[list[int]], ids: Sequence[SampleId], sampling: Sampling) -> list[list[int]]:
        """Tokens of each response."""
        if self.engine is not None:
            return self.engine(prompts, ids, sampling)
        return sample(self.model, self.tokenizer, prompts, ids, sampling)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the model in evaluation mode, and restore its mode afterwards."""
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)


def all_ids(num_problems: int, num_samples: int) -> list[SampleId]:
    """Every sample of every problem."""
    return [SampleId(problem, number) for problem in range(num_problems) for number in range(num_samples)]


def batches(prompts: Sequence[list[int]], ids: Sequence[SampleId], size: int) -> Iterator[list[SampleId]]:
    """The samples in batches of `size`; long prompts come first, prompts of equal length together."""
    ordered = sorted(ids, key=lambda one: (-len(prompts[one.problem]), one))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


# With transformers


class TakeToken(LogitsProcessor):
    """
    Leave one token per row: the one whose share of the probabilities contains the row's random number.

    Args:
        uniforms (`torch.Tensor`):
            `(B, T)`, in [0, 1): one per token and row.
    """

    def __init__(self, uniforms: Tensor):
        self.uniforms = uniforms.T.contiguous()
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        upper_ends = scores.to(self.uniforms.dtype).softmax(-1).cumsum(-1)
        places = self.uniforms[self._step].unsqueeze(-1) * upper_ends[:, -1:]
        self._step += 1
        taken = torch.searchsorted(upper_ends, places, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, taken, 0.0)


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    ids: Sequence[SampleId],
    sampling: Sampling,
) -> list[list[int]]:
    """
    The tokens of each response, including the end token if it was reached.

    A problem's prompt is read once for all its samples, unless the model has layers other than attention. A sample's
    random numbers do not depend on the other samples. The last digits of the logits may, and with them, rarely, a
    token.

    Args:
        prompts (`Sequence[list[int]]`):
            The tokens of every problem's prompt.
        ids (`Sequence[SampleId]`):
            The samples to draw.
    """
    problems = sorted({one.problem for one in ids})
    tokens, mask = _pad_left([prompts[problem] for problem in problems], tokenizer.pad_token_id, model.device)
    rows = torch.tensor([problems.index(one.problem) for one in ids], device=model.device)
    with torch.no_grad(), _neutral(model, tokenizer):
        cache = {}
        if tokens.shape[1] > 1:  # all tokens except the last, which gives the first logits
            read = model.generate(
                tokens[:, :-1],
                attention_mask=mask[:, :-1],
                max_new_tokens=1,
                do_sample=False,
                return_dict_in_generate=True,
            )
            name = "cache" if "cache" in read else "past_key_values"  # its name before transformers 5.24
            if _can_be_shared(read[name]):
                read[name].batch_select_indices(rows)
                cache = {name: read[name]}
        generated = model.generate(
            tokens[rows],
            attention_mask=mask[rows],
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            logits_processor=_processors(ids, sampling, model.device),
            **cache,
        )
    ends = _end_tokens(model, tokenizer)
    return [_up_to_end(response, ends) for response in generated[:, tokens.shape[1] :].tolist()]


def _can_be_shared(cache: Cache) -> bool:
    """Whether rows of a cache can be selected: attention keeps no state except keys and values."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def _processors(ids: Sequence[SampleId], sampling: Sampling, device: torch.device) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if sampling.temperature == 0:
        return processors
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(float(sampling.top_p)))
    uniforms = np.stack([np.random.default_rng((sampling.seed, *one)).random(sampling.max_new_tokens) for one in ids])
    precision = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs lack float64
    processors.append(TakeToken(torch.from_numpy(uniforms).to(device, precision)))
    return processors


@contextmanager
def _neutral(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Turn off the model's own settings that change the distribution: repetition_penalty, top_k and so on."""
    own = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=_end_tokens(model, tokenizer), pad_token_id=tokenizer.pad_token_id, use_cache=True
    )
    try:
        yield
    finally:
        model.generation_config = own


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end tokens of the tokenizer and of the model's settings; TRL's rollouts end at any of them."""
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    if not ends:
        raise ValueError(
            "neither the model's generation_config nor the tokenizer defines the token that ends a response: set "
            "eos_token_id"
        )
    return sorted(ends)


def _pad_left(prompts: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _up_to_end(response: list[int], ends: list[int]) -> list[int]:
    length = next((place for place, token in enumerate(response, start=1) if token in ends), len(response))
    return response[:length]


# With vLLM


class VLLMEngine:
    """
    An engine for [`Policy`]; vLLM caches a prompt for its other samples.

    Args:
        model (`str`):
            Folder, or name on the hub.
        revision (`str`, *optional*):
            Revision of a model on the hub.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Type of weights and activations.
        memory (`float`, *optional*, defaults to `0.5`):
            Share of the GPU's memory for vLLM; the rest is for the model that scores the responses.
    """

    def __init__(self, model: str, revision: str | None = None, dtype: str = "auto", memory: float = 0.5):
        check_vllm()
        from vllm import LLM

        # "vllm": ignore the model's own settings that change the distribution
        self.llm = LLM(
            model=model, revision=revision, dtype=dtype, gpu_memory_utilization=memory, generation_config="vllm"
        )

    def __call__(self, prompts: Sequence[list[int]], ids: Sequence[SampleId], sampling: Sampling) -> list[list[int]]:
        """Tokens of each response."""
        from vllm import SamplingParams

        outputs = self.llm.generate(
            [{"prompt_token_ids": prompts[one.problem]} for one in ids],
            [
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=int(np.random.SeedSequence((sampling.seed, *one)).generate_state(1)[0]),
                    skip_special_tokens=False,
                )
                for one in ids
            ],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]


def check_vllm() -> None:
    """Raise `ValueError` if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ValueError(
            "engine=vllm needs vLLM, which is not installed: pip install vllm, or set engine=transformers"
        )
