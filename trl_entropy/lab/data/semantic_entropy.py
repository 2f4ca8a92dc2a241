"""`trl-entropy data semantic-entropy`: measure how much a policy's answers to each problem differ."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from datasets import Dataset

from ...data.files import on_main
from ...data.problems import Problem, problems_of
from ...rewards.verifier import Verifier
from ...written import check_output
from ..evaluation.command import add_flags, fill_in, identity, sample
from ..evaluation.folder import SAMPLES, SETTINGS, read_lines
from ..evaluation.metrics import Samples
from ..evaluation.run import says_what_is_kept
from ..evaluation.scoring import read_samples
from .flags import read, read_rows, reader, write


COLUMNS = ("semantic_entropy", "semantic_entropy_weighted", "accuracy")
LIKELIHOODS = ("mean", "sum")


def semantic_entropy(classes: np.ndarray, logprobs: np.ndarray | None = None) -> np.ndarray:
    r"""
    Entropy of the answers in each problem's samples, `(P,)`, in nats: 0 if all are the same, at most log K.

    $$
    -\sum_k \hat P(C_k) \log \hat P(C_k), \qquad \hat P(C_k) \propto \sum_{o \in C_k} P(o)
    $$

    with \\( C_k \\) the samples of class k and \\( \log P(o) \\) = `logprobs`; without them every sample counts the
    same. A sample without an answer is a class of its own (ours): a policy that never reaches an answer gets log K,
    like one whose answers all differ.

    Args:
        classes (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers to a problem, -1 without an answer.
        logprobs (`numpy.ndarray`, *optional*):
            `(P, K)`, in nats. The paper uses log-probs of whole responses, where the likeliest of a few long responses
            dominates; means over tokens are our variant.

    Raises `ValueError` for shapes that differ.

    Reference: Cao et al., [Efficient Reinforcement Learning with Semantic and Token Entropy for LLM
    Reasoning](https://huggingface.co/papers/2512.04359), 2025.
    """
    if logprobs is None:
        logprobs = np.zeros(classes.shape)
    if logprobs.shape != classes.shape:
        raise ValueError(f"logprobs must have the shape of classes, {classes.shape}, got {logprobs.shape}")
    return np.array([_entropy(*problem) for problem in zip(classes, logprobs, strict=True)], dtype=float)


def _entropy(classes: np.ndarray, logprobs: np.ndarray) -> float:
    own = np.where(classes < 0, classes.max() + 1 + np.arange(len(classes)), classes)
    masses = np.array([np.logaddexp.reduce(logprobs[own == number]) for number in np.unique(own)])
    log_shares = masses - np.logaddexp.reduce(masses)
    return float(-(np.exp(log_shares) * log_shares).sum()) + 0.0


def run(arguments: list[str]) -> None:
    """Sample a model several times per problem, and write semantic entropy and accuracy as columns."""
    given = _read(arguments)
    dataset = read_rows(given)
    dataset = dataset.select(range(min(given.limit or len(dataset), len(dataset))))
    problems = problems_of(dataset, given.prompt_column, given.solution_column)
    if given.samples:
        verifier = Verifier(given.grading_deadline, given.grading_workers, batch_deadline=math.inf)
        _write(dataset, _sampled_before(Path(given.samples), problems, verifier), given)
        return
    state, reward, (task,) = sample(given, lambda: {given.dataset: problems})
    with says_what_is_kept([task]):
        on_main(
            state,
            lambda: _write(dataset, read_samples(task.folder, given.sampling.num_samples, reward.verifier), given),
        )


def _read(arguments: list[str]) -> argparse.Namespace:
    parser = reader("semantic-entropy", run.__doc__, reads=False)
    parser.add_argument("--samples", help="output folder of `trl-entropy eval` on this dataset, instead of sampling")
    parser.add_argument(
        "--output_dir",
        default="out/semantic_entropy",
        help="folder for the samples; existing samples in it are kept; default: out/semantic_entropy",
    )
    parser.add_argument(
        "--likelihood",
        choices=LIKELIHOODS,
        default="mean",
        help="log-prob of a response in the weighted form: mean or sum over its tokens; default: mean",
    )
    parser.add_argument("--sort", action="store_true", help="write problems with low semantic entropy first")
    add_flags(parser, split="train")
    given = read(parser, arguments)
    folder = Path(given.samples or given.output_dir)
    check_output(given.output, given.overwrite, (folder / SETTINGS, folder / SAMPLES))
    if given.benchmarks or given.benchmarks_dir:
        raise ValueError("semantic-entropy takes --dataset, not --benchmarks")
    if given.samples and given.dataset is None:
        raise ValueError("set --dataset to the dataset of the samples")
    if given.samples and given.model:
        raise ValueError("set --samples or --model, not both")
    if not given.samples:
        if given.model is None:
            raise ValueError("set --model, or --samples to the folder of an evaluation")
        fill_in(given)
        if given.sampling.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {given.sampling.num_samples}")
    return given


def _sampled_before(folder: Path, problems: list[Problem], verifier: Verifier) -> Samples:
    if not (folder / SETTINGS).is_file() or not (folder / SAMPLES).is_file():
        raise ValueError(f"samples must be an output folder of `trl-entropy eval` on one dataset, got {str(folder)!r}")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if any(settings[name] != value for name, value in identity(problems).items()):
        raise ValueError(
            f"{str(folder)!r} holds samples of {settings['num_problems']} problems that are not the dataset's "
            f"{len(problems)}: set the same dataset, split, columns and limit"
        )
    if len(read_lines(folder / SAMPLES)) != settings["num_samples"] * len(problems):
        raise ValueError(f"the evaluation in {str(folder)!r} is not finished: run it again")
    return read_samples(folder, settings["num_samples"], verifier)


def _write(dataset: Dataset, samples: Samples, given: argparse.Namespace) -> None:
    logprobs = samples.logprobs if given.likelihood == "mean" else samples.logprobs * samples.lengths
    values = (
        semantic_entropy(samples.answers),
        semantic_entropy(samples.answers, logprobs),
        samples.correct.mean(1),
    )
    for name, column in zip(COLUMNS, values, strict=True):
        if name in dataset.column_names:
            dataset = dataset.remove_columns(name)
        dataset = dataset.add_column(name, column.tolist())
        print(f"{name}: mean {column.mean():.4f}, from {column.min():.4f} to {column.max():.4f}")
    if given.sort:
        dataset = dataset.select(np.argsort(values[0], kind="stable"))
    write(dataset, given)
