"""Grade responses: how likely a response is, whether its answer is right, and which answers are equal."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...data.problems import Problem
from ...rewards import MathVerifyReward
from ...rewards.messages import text_of
from ...rewards.verifier import Verifier
from .folder import SAMPLES, Line, read_lines
from .metrics import Samples
from .sampling import Policy, SampleId, Sampling, batches


CHUNK = 1024  # number of tokens whose log-probabilities are in memory at once
BYTES = 2**31  # bytes of logits per forward pass, unless a single response has more
UNREAD = ("unparsable_answer", "timeout", "error")


class ResponseScore(NamedTuple):
    """
    Means over the tokens of a response, or of its prompt, at temperature 1.

    Args:
        logprob (`float`):
            In nats: log-probability of the response's tokens.
        entropy (`float`):
            In nats per token: entropy over the whole vocabulary at the response's tokens.
        prompt_entropy (`float`):
            The same at the prompt's tokens except the first; NaN for a prompt of one token.
    """

    logprob: float
    entropy: float
    prompt_entropy: float


@torch.no_grad()
def score_responses(
    model: PreTrainedModel, pad: int, prompts: Sequence[list[int]], responses: Sequence[list[int]]
) -> list[ResponseScore]:
    """
    The score of each response to its prompt; a forward pass takes as many as fit into [`BYTES`] of logits.

    Args:
        pad (`int`):
            The padding token, which is masked.
        prompts, responses (`Sequence[list[int]]`):
            Tokens.
    """
    rows = [(len(prompt), prompt + response) for prompt, response in zip(prompts, responses, strict=True)]
    size = max(len(row) for _, row in rows) * model.config.get_text_config().vocab_size * model.dtype.itemsize
    at_once = max(1, BYTES // size)
    parts = (rows[start : start + at_once] for start in range(0, len(rows), at_once))
    return [score for part in parts for score in _score(model, pad, part)]


def _score(model: PreTrainedModel, pad: int, rows: list[tuple[int, list[int]]]) -> list[ResponseScore]:
    longest = max(len(row) for _, row in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for _, row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for _, row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    means = []
    for place, (length, row) in enumerate(rows):
        logprobs, entropies = _of_tokens(logits[place, : len(row) - 1], ids[place, 1 : len(row)])
        before = length - 1
        means.append(torch.stack([logprobs[before:].mean(), entropies[before:].mean(), entropies[:before].mean()]))
    return [ResponseScore(*found) for found in torch.stack(means).tolist()]


def _of_tokens(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy at its place, both `(T,)`."""
    logprobs, entropies = [], []
    for some_logits, some_tokens in zip(logits.split(CHUNK), tokens.split(CHUNK), strict=True):
        logps = some_logits.float().log_softmax(-1)
        logprobs.append(logps.gather(-1, some_tokens.unsqueeze(-1)).squeeze(-1))
        # a logit of -inf adds nothing to the entropy
        entropies.append(-torch.where(logps.isneginf(), 0.0, logps.exp() * logps).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def graded_lines(
    policy: Policy,
    prompts: Sequence[list[int]],
    problems: Sequence[Problem],
    ids: Sequence[SampleId],
    sampling: Sampling,
    reward: MathVerifyReward,
) -> Iterator[list[Line]]:
    """
    Sample, score and grade the samples in `ids`, a batch at a time.

    Args:
        policy ([`~evaluation.sampling.Policy`]):
            The policy that samples and scores.
        prompts (`Sequence[list[int]]`):
            The tokens of every problem's prompt.
        problems (`Sequence[Problem]`):
            The problems.
        ids (`Sequence[SampleId]`):
            The samples to draw.
        sampling ([`~evaluation.sampling.Sampling`]):
            The settings of sampling.
        reward ([`~rewards.MathVerifyReward`]):
            The reward that finds answers and decides what is right.
    """
    for batch in batches(prompts, ids, sampling.batch_size):
        with policy.evaluating():
            responses = policy.sample(prompts, batch, sampling)
            read = [prompts[one.problem] for one in batch]
            scores = score_responses(policy.model, policy.tokenizer.pad_token_id, read, responses)
        texts = policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
        answers, reasons = reward.verdicts(texts, [problems[one.problem].solution for one in batch])
        yield [
            Line(
                *one,
                prompt=text_of(problems[one.problem].prompt),
                solution=str(problems[one.problem].solution),
                response=text,
                answer=answer,
                correct=reason == "correct",
                reason=reason,
                length=len(response),
                logprob=score.logprob,
                entropy=score.entropy,
                prompt_entropy=None if math.isnan(score.prompt_entropy) else score.prompt_entropy,
            )
            for one, text, answer, reason, response, score in zip(
                batch, texts, answers, reasons, responses, scores, strict=True
            )
        ]


def samples_of(lines: Sequence[Line], num_samples: int, verifier: Verifier) -> Samples:
    """All K samples of all P problems, in order, in the form that the metrics need."""
    shape = len(lines) // num_samples, num_samples

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([getattr(line, name) for line in lines], dtype=kind).reshape(shape)

    texts, answers, reasons = (column(name, object).tolist() for name in ("response", "answer", "reason"))
    return Samples(
        correct=column("correct", bool),
        answers=answer_classes(answers, reasons, verifier),
        lengths=column("length", int),
        logprobs=column("logprob", float),
        entropies=column("entropy", float),
        prompt_entropies=column("prompt_entropy", float)[:, 0],
        texts=texts,
    )


def read_samples(folder: Path, num_samples: int, verifier: Verifier) -> Samples:
    """The first `num_samples` samples of each problem of a finished folder."""
    lines = [line for line in read_lines(folder / SAMPLES) if line.sample < num_samples]
    return samples_of(sorted(lines, key=lambda line: line.id), num_samples, verifier)


def answer_classes(
    answers: Sequence[Sequence[str | None]], reasons: Sequence[Sequence[str]], verifier: Verifier
) -> np.ndarray:
    """
    Number of each answer's class within its problem, `(P, K)`: equal for answers that the verifier finds equal.

    All correct answers are one class. Any other answer joins the first class, in the order of samples, whose first
    answer it equals. An answer that could not be read, or took too long, only equals the same text. -1 means no
    answer.

    Args:
        answers (`Sequence[Sequence[str | None]]`):
            `(P, K)`.
        reasons (`Sequence[Sequence[str]]`):
            `(P, K)`: the verdicts on the answers.
        verifier ([`~rewards.Verifier`]):
            Compares answers; in each round, every problem's unclassified answers are compared with one of them.
    """
    numbers = [_settled(*problem) for problem in zip(answers, reasons, strict=True)]
    following = [max(known.values(), default=-1) + 1 for known in numbers]
    opened = {
        place: list(dict.fromkeys(answer for answer in row if answer is not None and answer not in numbers[place]))
        for place, row in enumerate(answers)
    }
    while opened := {place: rest for place, rest in opened.items() if rest}:
        pairs = [(place, rest[0], answer) for place, rest in opened.items() for answer in rest[1:]]
        verdicts = verifier.verdicts([first for _, first, _ in pairs], [answer for _, _, answer in pairs])
        others = defaultdict(list)
        for place, rest in opened.items():
            numbers[place][rest[0]] = following[place]
        for (place, _, answer), verdict in zip(pairs, verdicts, strict=True):
            if verdict == "correct":
                numbers[place][answer] = following[place]
            else:
                others[place].append(answer)
        for place in opened:
            following[place] += 1
        opened = others
    return np.array(
        [[-1 if answer is None else numbers[place][answer] for answer in row] for place, row in enumerate(answers)]
    )


def _settled(answers: Sequence[str | None], reasons: Sequence[str]) -> dict[str, int]:
    """Classes that need no comparison, by answer: 0 for all correct answers, and one for each unread answer."""
    numbers = {answer: 0 for answer, reason in zip(answers, reasons, strict=True) if reason == "correct"}
    for answer, reason in zip(answers, reasons, strict=True):
        if reason in UNREAD and answer is not None:
            numbers.setdefault(answer, max(numbers.values(), default=-1) + 1)
    return numbers
