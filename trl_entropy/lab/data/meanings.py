"""How much a policy's samples of a problem differ in what they say."""

import numpy as np


def semantic_entropy(classes: np.ndarray, logprobs: np.ndarray | None = None) -> np.ndarray:
    r"""
    Entropy of what the samples of each problem say, `(P,)`, in nats: 0 if all say the same, at most log K.

    $$
    -\sum_k \hat P(C_k) \log \hat P(C_k), \qquad \hat P(C_k) \propto \sum_{o \in C_k} P(o)
    $$

    with \\( C_k \\) the samples of class k and \\( \log P(o) \\) = `logprobs`; without them every sample counts the
    same. A sample without an answer says something of its own (ours): a policy that never comes to an answer has
    log K, as one whose answers all differ.

    Args:
        classes (`numpy.ndarray`):
            `(P, K)` int: equal for equal answers of a problem, -1 for none.
        logprobs (`numpy.ndarray`, *optional*):
            `(P, K)`, nats. Those of whole responses are the paper's form, in which the likeliest of a few long
            responses decides alone; their means over tokens are a deviation of ours.

    Raises `ValueError` for shapes that differ.

    Reference: Cao et al., [Efficient Reinforcement Learning with Semantic and Token Entropy for LLM
    Reasoning](https://huggingface.co/papers/2512.04359), 2025.
    """
    if logprobs is None:
        logprobs = np.zeros(classes.shape)
    if logprobs.shape != classes.shape:
        raise ValueError(f"logprobs must be of the shape of classes, {classes.shape}, got {logprobs.shape}")
    return np.array([_entropy(*problem) for problem in zip(classes, logprobs, strict=True)], dtype=float)


def _entropy(classes: np.ndarray, logprobs: np.ndarray) -> float:
    own = np.where(classes < 0, classes.max() + 1 + np.arange(len(classes)), classes)
    masses = np.array([np.logaddexp.reduce(logprobs[own == number]) for number in np.unique(own)])
    log_shares = masses - np.logaddexp.reduce(masses)
    return float(-(np.exp(log_shares) * log_shares).sum()) + 0.0
