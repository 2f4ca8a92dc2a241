"""An unbiased estimate of pass@k."""

import math


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    r"""
    Probability that at least one of `k` samples of a problem is correct, if `num_correct` of `num_samples` were.

    $$
    1 - \binom{n-c}{k} / \binom{n}{k}
    $$

    Raises `ValueError` unless `1 <= k <= num_samples` and `0 <= num_correct <= num_samples`.

    Reference: Chen et al., [Evaluating Large Language Models Trained on
    Code](https://huggingface.co/papers/2107.03374), 2021.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be between 1 and num_samples={num_samples}, got {k}")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct must be between 0 and num_samples={num_samples}, got {num_correct}")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)
