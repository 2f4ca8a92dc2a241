"""From rows to graded lines: batch by batch, sampled, scored, graded."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...data.problems import Problem
from ...rewards import MathVerifyReward
from .folder import Line
from .sampling import Row, Sampling, draw
from .scoring import think


@dataclass(frozen=True)
class Policy:
    """
    What draws the responses, and what scores them.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Scores responses, and draws them unless another engine does.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        engine (`Callable`, *optional*):
            `engine(prompts, rows, sampling)` gives the tokens of a response for each row; by default
            [`~evaluation.sampling.draw`] with the model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    engine: Callable[[Sequence[list[int]], Sequence[Row], Sampling], list[list[int]]] | None = None

    def draw(self, prompts: Sequence[list[int]], rows: Sequence[Row], sampling: Sampling) -> list[list[int]]:
        """Tokens of a response for each row."""
        if self.engine is not None:
            return self.engine(prompts, rows, sampling)
        return draw(self.model, self.tokenizer, prompts, rows, sampling)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """With the model in evaluation mode, and afterwards in the one it was in."""
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)


def all_rows(num_problems: int, num_samples: int) -> list[Row]:
    """Every sample of every problem."""
    return [Row(problem, sample) for problem in range(num_problems) for sample in range(num_samples)]


def batches(prompts: Sequence[list[int]], rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """The rows, `size` at a time; long prompts come first, those of equal length together."""
    ordered = sorted(rows, key=lambda row: (-len(prompts[row.problem]), row))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def graded_lines(
    policy: Policy,
    prompts: Sequence[list[int]],
    problems: Sequence[Problem],
    rows: Sequence[Row],
    sampling: Sampling,
    reward: MathVerifyReward,
) -> Iterator[list[Line]]:
    """
    A line for each row, a batch at a time.

    Args:
        policy ([`Policy`]):
            Draws and scores.
        prompts (`Sequence[list[int]]`):
            Tokens of the prompt of every problem.
        problems (`Sequence[Problem]`):
            The problems.
        rows (`Sequence[Row]`):
            What is wanted.
        sampling ([`~evaluation.sampling.Sampling`]):
            How it is drawn.
        reward ([`~rewards.MathVerifyReward`]):
            Where the answer stands, and what is right.
    """
    for batch in batches(prompts, rows, sampling.batch_size):
        with policy.evaluating():
            responses = policy.draw(prompts, batch, sampling)
            read = [prompts[row.problem] for row in batch]
            thoughts = think(policy.model, policy.tokenizer.pad_token_id, read, responses)
        texts = policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
        answers, reasons = reward.verdicts(texts, [problems[row.problem].solution for row in batch])
        yield [
            Line(
                problem=row.problem,
                sample=row.sample,
                response=text,
                answer=answer,
                correct=reason == "correct",
                reason=reason,
                length=len(response),
                logprob=thought.logprob,
                entropy=thought.entropy,
                prompt_entropy=None if math.isnan(thought.prompt_entropy) else thought.prompt_entropy,
            )
            for row, text, answer, reason, response, thought in zip(
                batch, texts, answers, reasons, responses, thoughts, strict=True
            )
        ]
