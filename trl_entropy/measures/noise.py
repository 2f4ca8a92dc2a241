"""Estimate the share of noise in the gradient."""

import math
from collections.abc import Mapping

from torch import Tensor


PRODUCT, NOW, BEFORE = (f"_gradient/{name}" for name in ("product", "now", "before"))


class GradientNoise:
    r"""
    Compare the gradient of every optimizer step with those of the previous rollout, which has other rows.

    With \\( g \\) the gradient of a step and \\( g_1, \dots, g_U \\) those of the previous rollout's steps,

    $$
    \text{share} = 1 - \frac{\langle g, \bar g_j \rangle}{\sqrt{\lVert g \rVert^2 \; \overline{\lVert g_j \rVert^2}}}
    $$

    If every gradient is \\( s + n \\), a common signal plus independent noise with mean 0, then the product has the
    mean \\( S^2 = \lVert s \rVert^2 \\) and the squares have the mean \\( S^2 + N \\), so the share is
    \\( N / (S^2 + N) \\). The value of a single step scatters and may be above 1: read the mean over many steps.

    Gradients of the same rollout are not compared with each other. Its groups are split over its steps, and the
    advantages of a group add up to 0, so the noise of these steps is anticorrelated. In a second pass, the rows are
    even the same.

    The share is an upper bound: the signal of one problem that others do not share counts as noise, and so does the
    policy's change between the two rollouts. The gradient includes loss terms and the entropy bonus.

    The idea to compare two batches is from [An Empirical Model of Large-Batch
    Training](https://huggingface.co/papers/1812.06162), 2018, which needs two batch sizes; the formula is ours.
    """

    def __init__(self):
        # Sum of gradients, sum of their squared norms, and number, for the previous rollout and for this one
        self._before: tuple[Tensor, Tensor, int] | None = None
        self._now: tuple[Tensor, Tensor, int] | None = None

    def begin_rollout(self) -> None:
        """Begin a new rollout: the next gradients have new rows."""
        if self._now is not None:
            self._before, self._now = self._now, None

    def add(self, gradient: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """
        The parts of [`noise_share`], as `(sum, count)` of this rank; empty in the first rollout.

        Args:
            gradient (`torch.Tensor`):
                `(D,)`: the gradient of an optimizer step, at the coordinates that this rank holds, the same at each
                call.
        """
        square, before, now = gradient.square().sum(), self._before, self._now
        if any(kept is not None and kept[0].shape != gradient.shape for kept in (before, now)):
            before = now = None  # from here, another part of the policy is trained
        total, squares, number = (0, 0, 0) if now is None else now
        self._before, self._now = before, (total + gradient, squares + square, number + 1)
        if before is None:
            return {}
        total, squares, number = before
        parts = {PRODUCT: (gradient * total).sum() / number, NOW: square, BEFORE: squares / number}
        return {name: (part, square.new_ones(())) for name, part in parts.items()}


def noise_share(means: Mapping[str, float]) -> dict[str, float]:
    """The share of noise of [`GradientNoise`] from its parts on all ranks; empty if a gradient was 0 or not finite."""
    now, before = (means.get(name, 0.0) for name in (NOW, BEFORE))
    if not (0 < now < math.inf and 0 < before < math.inf):
        return {}
    return {"authority/noise_share": 1 - means[PRODUCT] / math.sqrt(now) / math.sqrt(before)}
