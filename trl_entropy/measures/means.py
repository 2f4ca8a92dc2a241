"""Means over an optimizer step, with one reduction."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Means:
    """Sums and counts on the device, added up over micro-batches and reduced over ranks once per optimizer step."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}

    def add(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add `(sum, count)` pairs of one micro-batch; no host sync."""
        for name, (total, count) in parts.items():
            pair = torch.stack([total.detach().float(), count.detach().float()])
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def reduce(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """
        The means of all that was added, by one call of `over_ranks` and one host sync; then empty again.

        A mean over no tokens is left out.
        """
        if not self._sums:
            return {}
        pairs = over_ranks(torch.stack(list(self._sums.values()))).tolist()
        means = {name: total / count for name, (total, count) in zip(self._sums, pairs, strict=True) if count > 0}
        self._sums = {}
        return means
