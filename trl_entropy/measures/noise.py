"""How much of the gradient is noise."""

import math
from collections.abc import Mapping

from torch import Tensor


PRODUCT, NOW, BEFORE = (f"_gradient/{name}" for name in ("product", "now", "before"))


class GradientNoise:
    r"""
    Compare the gradient of every optimizer step with those of the rollout before, of other rows.

    With \\( g \\) the gradient of a step and \\( g_1, \dots, g_U \\) those of the steps of the rollout before,

    $$
    \text{share} = 1 - \frac{\langle g, \bar g_j \rangle}{\sqrt{\lVert g \rVert^2 \; \overline{\lVert g_j \rVert^2}}}
    $$

    If every gradient is \\( s + n \\), one signal and independent noise of mean 0, then the product has the mean
    \\( S^2 = \lVert s \rVert^2 \\) and the squares have \\( S^2 + N \\), so that the share is \\( N / (S^2 + N) \\).
    That of a single step scatters, also above 1: read its mean over many.

    Gradients of one rollout are not compared with each other. Its groups are split over its steps, where the
    advantages of a group add up to 0, so their noise is anticorrelated; in a second pass the rows are the same.

    It is an upper bound: the signal of one problem that others do not share counts as noise, and so does what the
    policy has changed between the two. Loss terms and the entropy bonus are in the gradient, too.

    The idea of two batches against each other is that of [An Empirical Model of Large-Batch
    Training](https://huggingface.co/papers/1812.06162), 2018, which needs two sizes of batches; the formula is ours.
    """

    def __init__(self):
        # Sum of gradients, sum of their squared norms, number; of the rollout before and of this one
        self._before: tuple[Tensor, Tensor, int] | None = None
        self._now: tuple[Tensor, Tensor, int] | None = None

    def begin_rollout(self) -> None:
        """The next gradients are of new rows."""
        if self._now is not None:
            self._before, self._now = self._now, None

    def add(self, gradient: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """
        What [`noise_share`] is made of, as `(sum, count)` of this rank; nothing without a rollout before.

        Args:
            gradient (`torch.Tensor`):
                `(D,)`: of an optimizer step the same coordinates at each call, those that this rank holds.
        """
        square, before, now = gradient.square().sum(), self._before, self._now
        if any(kept is not None and kept[0].shape != gradient.shape for kept in (before, now)):
            before = now = None  # another part of the policy is trained from here on
        total, squares, number = (0, 0, 0) if now is None else now
        self._before, self._now = before, (total + gradient, squares + square, number + 1)
        if before is None:
            return {}
        total, squares, number = before
        parts = {PRODUCT: (gradient * total).sum() / number, NOW: square, BEFORE: squares / number}
        return {name: (part, square.new_ones(())) for name, part in parts.items()}


def noise_share(means: Mapping[str, float]) -> dict[str, float]:
    """The share of noise of [`GradientNoise`], from its parts on all ranks; none if a gradient was 0 or not finite."""
    now, before = (means.get(name, 0.0) for name in (NOW, BEFORE))
    if not (0 < now < math.inf and 0 < before < math.inf):
        return {}
    return {"authority/noise_share": 1 - means[PRODUCT] / math.sqrt(now) / math.sqrt(before)}
