"""All metrics of a set of samples, by name, with standard errors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .accuracy import average, majority, solved
from .bootstrap import Mean, Statistic, draws, once, standard_error
from .calibration import AUROC, ECE, brier
from .confidence import logprob_confidence, vote_confidence
from .diversity import distinct, distinct_answers, vote_entropy
from .samples import Samples
from .self_bleu import self_bleu


class Score(NamedTuple):
    """
    A metric of all problems.

    Args:
        value (`float`):
            NaN if the samples do not define it.
        stderr (`float`):
            Its standard error, by a bootstrap over problems; NaN for a single problem.
    """

    value: float
    stderr: float


def scores(
    samples: Samples, ks: Sequence[int] | None = None, seed: int = 0, resamples: int = 1000
) -> dict[str, Score]:
    """
    All metrics, in the order of a table.

    Args:
        samples ([`~evaluation.samples.Samples`]):
            K samples of each of P problems.
        ks (`Sequence[int]`, *optional*):
            The k of pass@k and maj@k; by default 1, 2, 4, ... and K.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap, the only thing that is random.
        resamples (`int`, *optional*, defaults to `1000`):
            Of the bootstrap.

    Raises `ValueError` for arrays of different shapes, no samples, log-probs or entropies that are not finite, a `k`
    outside of 1 to K, and fewer than 2 resamples.
    """
    table = metrics(samples, ks)
    num_problems = len(samples.correct)
    drawn = draws(num_problems, resamples, seed)
    return {
        name: Score(
            float(metric(once(num_problems))[0]), standard_error(metric(drawn)) if num_problems > 1 else np.nan
        )
        for name, metric in table.items()
    }


def powers_of_two(num_samples: int) -> list[int]:
    """1, 2, 4, ... below `num_samples`, and `num_samples`."""
    return [*(2**i for i in range((num_samples - 1).bit_length())), num_samples]


def at_powers_of_two(table: Mapping[str, Score], num_samples: int) -> dict[str, Score]:
    """The scores without pass@k and maj@k of the other k."""
    kept = {str(k) for k in powers_of_two(num_samples)}
    return {name: score for name, score in table.items() if "@" not in name or name.partition("@")[2] in kept}


def metrics(samples: Samples, ks: Sequence[int] | None = None) -> dict[str, Statistic]:
    """The metrics as functions of the problems' weights, by name; arguments and errors as for `scores`."""
    _check(samples)
    correct, answers, texts = samples.correct, samples.answers, samples.texts
    ks = powers_of_two(correct.shape[1]) if ks is None else ks
    of_ngrams = np.array([distinct(problem) for problem in texts]).T
    table: dict[str, Statistic] = {
        f"avg@{correct.shape[1]}": Mean(average(correct)),
        **{f"pass@{k}": Mean(solved(correct, k)) for k in ks},
        **{f"maj@{k}": Mean(majority(correct, answers, k)) for k in ks},
        "distinct_answers": Mean(distinct_answers(answers)),
        "vote_entropy": Mean(vote_entropy(answers)),
        **{f"distinct_{n}": Mean(values) for n, values in enumerate(of_ngrams, start=1)},
        "self_bleu": Mean(np.array([self_bleu(problem) for problem in texts])),
        "response_length": Mean(samples.lengths.mean(1)),
        "response_entropy": Mean(samples.entropies.mean(1)),
        "prompt_entropy": Mean(samples.prompt_entropies),
    }
    confidences = {"logprob": logprob_confidence(samples.logprobs), "vote": vote_confidence(answers)}
    for name, confidence in confidences.items():
        table[f"ece_{name}"] = ECE(confidence, correct)
        table[f"brier_{name}"] = Mean(brier(confidence, correct))
        table[f"auroc_{name}"] = AUROC(confidence, correct)
    return table


def _check(samples: Samples) -> None:
    shape = samples.correct.shape
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"correct must have the shape (problems, samples) and hold one at least, got {shape}")
    for name in ("answers", "lengths", "logprobs", "entropies"):
        if getattr(samples, name).shape != shape:
            raise ValueError(f"{name} must have the shape of correct, {shape}, got {getattr(samples, name).shape}")
    if samples.prompt_entropies.shape != shape[:1]:
        raise ValueError(f"prompt_entropies must have the shape {shape[:1]}, got {samples.prompt_entropies.shape}")
    if [len(problem) for problem in samples.texts] != [shape[1]] * shape[0]:
        raise ValueError(f"texts must hold {shape[0]} lists of {shape[1]} responses")
    if samples.correct.dtype != bool:
        raise ValueError(f"correct must be an array of bool, got {samples.correct.dtype}")
    for name in ("logprobs", "entropies"):
        if not np.isfinite(getattr(samples, name)).all():
            raise ValueError(f"{name} must be finite; leave no response without a token")
