"""Means over an optimizer step, with a single reduction."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


# By name: `(B, T)` values, and a bool mask of the tokens to average over
Values = dict[str, tuple[Tensor, Tensor]]


class Means:
    """Sums and counts on the device, accumulated over micro-batches and reduced over ranks once per optimizer step."""

    def __init__(self):
        # Keyed by all names that are added together, so that adding is one operation
        self._sums: dict[tuple[str, ...], Tensor] = {}

    def add(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add `(sum, count)` pairs of one micro-batch; no host sync."""
        if parts:
            pairs = [value.detach().float() for pair in parts.values() for value in pair]
            self._add(tuple(parts), torch.stack(pairs).view(-1, 2))

    @torch.no_grad()
    def add_values(self, values: Values) -> None:
        """Add `(values, tokens)` pairs of one micro-batch, all of one shape; no host sync."""
        if values:
            chosen = torch.stack([tokens for _, tokens in values.values()])
            every = torch.stack([value for value, _ in values.values()]).float()
            parts = every.masked_fill(~chosen, 0), chosen
            self._add(tuple(values), torch.stack([part.sum((-2, -1), dtype=torch.float32) for part in parts], -1))

    def _add(self, names: tuple[str, ...], pairs: Tensor) -> None:
        self._sums[names] = self._sums[names] + pairs if names in self._sums else pairs

    def reduce(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """
        Return the means of everything added, with one call of `over_ranks` and one host sync, and clear the sums.

        A mean over no tokens is left out.
        """
        if not self._sums:
            return {}
        together = sorted(self._sums)  # the order may differ between ranks
        names = [name for group in together for name in group]
        pairs = over_ranks(torch.cat([self._sums[group] for group in together])).tolist()
        self._sums = {}
        sums: dict[str, tuple[float, float]] = {}
        for name, (total, count) in zip(names, pairs, strict=True):
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + total, before[1] + count
        return {name: total / count for name, (total, count) in sums.items() if count > 0}
