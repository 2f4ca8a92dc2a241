"""How sure the model is of a response: by its tokens, and by its vote."""

import numpy as np


def logprob_confidence(logprobs: np.ndarray) -> np.ndarray:
    """
    `exp(logprobs)`: the geometric mean of the probabilities of a response's tokens.

    Args:
        logprobs (`numpy.ndarray`):
            `(P, K)`, nats: means over the tokens. What rounding has lifted above 0 counts as 0.
    """
    return np.exp(np.minimum(logprobs, 0.0))


def vote_confidence(answers: np.ndarray) -> np.ndarray:
    """
    Share of the K samples of a problem that have the sample's own answer, `(P, K)`; 0 for a sample without one.

    Args:
        answers (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers of a problem, -1 for none.
    """
    return ((answers[:, :, None] == answers[:, None, :]) & (answers >= 0)[:, :, None]).mean(2)
