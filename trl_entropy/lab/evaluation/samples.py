"""What the metrics are computed from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Samples:
    """
    K samples of each of P problems. Arrays are `(P, K)` where no other shape is given; no sample may be missing.

    Args:
        correct (`numpy.ndarray`):
            Bool.
        answers (`numpy.ndarray`):
            Int: number of the answer's class within its problem. Equal answers, by the verifier, have equal numbers;
            -1 where no answer was found.
        lengths (`numpy.ndarray`):
            Int, tokens.
        logprobs (`numpy.ndarray`):
            Nats: mean over the response's tokens of the log-prob of the sampled token, at temperature 1.
        entropies (`numpy.ndarray`):
            Nats per token: mean over the response's tokens, at temperature 1.
        prompt_entropies (`numpy.ndarray`):
            `(P,)`: nats per token, at temperature 1.
        texts (`list[list[str]]`):
            The responses.
    """

    correct: np.ndarray
    answers: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray
    entropies: np.ndarray
    prompt_entropies: np.ndarray
    texts: list[list[str]]
