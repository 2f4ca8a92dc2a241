"""Whether a response that the model is sure of is right: ECE, Brier score, AUROC, reliability."""

from typing import NamedTuple

import numpy as np

from .bootstrap import ratio


BINS = 15


def brier(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """
    Mean squared difference of `confidence` and `correct`, both `(P, K)`, for each problem: `(P,)`.

    Reference: Brier, [Verification of Forecasts Expressed in Terms of
    Probability](https://doi.org/10.1175/1520-0493%281950%29078%3C0001:VOFEIT%3E2.0.CO;2), 1950.
    """
    return ((confidence - correct) ** 2).mean(1)


class Bin(NamedTuple):
    """
    One bar of a reliability diagram.

    Args:
        low, high (`float`):
            The confidences in it: above `low`, up to `high`; 0 is in the first.
        confidence (`float`):
            Their mean; NaN in an empty bin.
        accuracy (`float`):
            Share of correct samples; NaN in an empty bin.
        count (`int`):
            Samples.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The reliability table of samples, `(P, K)` or flat, in `bins` bins of equal width."""
    count, sure, right = _in_bins(confidence.reshape(1, -1), correct.reshape(1, -1), bins)[:, 0]
    means = zip(ratio(sure, count).tolist(), ratio(right, count).tolist(), count.tolist(), strict=True)
    return [Bin(b / bins, (b + 1) / bins, *mean, int(number)) for b, (*mean, number) in enumerate(means)]


def _in_bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> np.ndarray:
    """Samples, sum of confidences and correct samples of each problem and bin: `(3, P, bins)`."""
    place = np.searchsorted(np.arange(1, bins) / bins, confidence)
    inside = place[..., None] == np.arange(bins)
    return np.stack([inside.sum(1), (inside * confidence[..., None]).sum(1), (inside & correct[..., None]).sum(1)])


class ECE:
    r"""
    Expected calibration error over all samples.

    $$
    \sum_b \frac{n_b}{n} \, | \text{accuracy}_b - \text{confidence}_b |
    $$

    Args:
        confidence, correct (`numpy.ndarray`):
            `(P, K)`.
        bins (`int`, *optional*, defaults to `15`):
            Bins of equal width, closed above.

    Reference: Guo et al., [On Calibration of Modern Neural Networks](https://huggingface.co/papers/1706.04599), 2017.
    """

    def __init__(self, confidence: np.ndarray, correct: np.ndarray, bins: int = BINS):
        self.count, self.sure, self.right = _in_bins(confidence, correct, bins)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The error `(R,)`, given `(R, P)` weights of problems."""
        gaps = np.abs(weights @ self.right - weights @ self.sure).sum(1)
        return ratio(gaps, (weights @ self.count).sum(1))


class AUROC:
    """
    Share of pairs of a correct and a wrong sample, of all problems, in which the correct one has more confidence.

    Equal confidences count half. NaN if all samples are correct, or none is.

    Args:
        confidence, correct (`numpy.ndarray`):
            `(P, K)`.

    Reference: Hanley and McNeil, [The meaning and use of the area under a receiver operating characteristic (ROC)
    curve](https://doi.org/10.1148/radiology.143.1.7063747), 1982.
    """

    def __init__(self, confidence: np.ndarray, correct: np.ndarray):
        order = confidence.argsort(axis=None, kind="stable")
        ranked = confidence.ravel()[order]
        self.problems = order // confidence.shape[1]
        self.right = correct.ravel()[order]
        self.starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """The area `(R,)`, given `(R, P)` weights of problems."""
        return np.array([self._area(row[self.problems]) for row in weights])

    def _area(self, weights: np.ndarray) -> float:
        right = np.add.reduceat(weights * self.right, self.starts)
        wrong = np.add.reduceat(weights * ~self.right, self.starts)
        won = (right * (wrong.cumsum() - wrong / 2)).sum()
        pairs = right.sum() * wrong.sum()
        return won / pairs if pairs else np.nan
