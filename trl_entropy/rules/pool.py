"""Statistics over all trained tokens of an optimizer step, on all ranks, without a host sync."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


LAST_KEY = 2**32 - 1
# The parts into which the 32 bits of a key are split: first bit and number of bits of each
PARTS = ((21, 11), (10, 11), (0, 10))


def _of_one_rank(values: Tensor) -> Tensor:
    return values


class Pool:
    """
    The trained tokens of an optimizer step; rules take their statistics over them.

    So a rule's selection of tokens does not depend on how the step is split into micro-batches or over ranks.

    Args:
        batches (`Sequence[Tokens]`):
            The micro-batches of this rank, without gradient.
        over_ranks (`Callable[[Tensor], Tensor]`, *optional*):
            Sums a tensor over the ranks. Every method calls it the same number of times on each rank.

    `of` is a function of tokens, `(B, T)` or `(B,)`, throughout.
    """

    def __init__(self, batches: Sequence, over_ranks: Callable[[Tensor], Tensor] = _of_one_rank):
        self.batches = list(batches)
        self.over_ranks = over_ranks

    def sum(self, of: Callable) -> Tensor:
        r"""\\( \sum_t \mathrm{of}_t \\) over the trained tokens, float64."""
        parts = [_exact(tokens.trained(of(tokens))).sum() for tokens in self.batches]
        return self.over_ranks(torch.stack(parts).sum())

    def sums(self, of: Sequence[Callable]) -> Tensor:
        """The sum of each function over the trained tokens, `(len(of),)` float64, with one reduction over ranks."""
        parts = [torch.stack([_exact(tokens.trained(each(tokens))).sum() for each in of]) for tokens in self.batches]
        return self.over_ranks(torch.stack(parts).sum(0))

    def count(self, among: Callable | None = None) -> Tensor:
        """Number of trained tokens, or of those selected by `among`, float64."""
        return self.sum(lambda tokens: _among(tokens, among))

    def share(self, share: float, among: Callable | None = None) -> Tensor:
        """A share of the tokens as a number: rounded down, but at least one unless the share is 0; float64."""
        return (share * self.count(among)).floor().clamp(min=math.ceil(share))

    def mean(self, of: Callable, among: Callable | None = None) -> Tensor:
        """Mean over the trained tokens, or those selected by `among`, float32; 0 if there are none."""
        total = self.sum(of if among is None else lambda tokens: torch.where(among(tokens), of(tokens), 0))
        return (total / self.count(among).clamp(min=1)).float()

    def std(self, of: Callable) -> Tensor:
        """Standard deviation over the trained tokens (of the population), float32."""
        count = self.count().clamp(min=1)
        mean = self.sum(of) / count
        squares = self.sum(lambda tokens: (_exact(of(tokens)) - mean).square())
        return (squares / count).sqrt().float()

    def mean_of_rows(self, of: Callable) -> Tensor:
        """Mean of `(B,)` values over the completions that have a trained token, float32; 0 if there are none."""
        parts = [
            torch.stack([_exact(of(tokens) * has).sum(), _exact(has).sum()])
            for tokens in self.batches
            for has in [tokens.mask.any(-1)]
        ]
        total, count = self.over_ranks(torch.stack(parts).sum(0))
        return (total / count.clamp(min=1)).float()

    def largest(self, of: Callable, rank: Tensor | int, among: Callable | None = None) -> Tensor:
        """
        The exact value at rank `rank` (1 is the largest), float32; `inf` for rank 0, `-inf` beyond the last.

        Args:
            among (`Callable[[Tokens], Tensor]`, *optional*):
                Bool `(B, T)`: the tokens to consider.
        """
        keys, counts = self._keys(of, among)
        rank = left = _on_device(rank, counts)
        found = 0
        for first, bits in PARTS:
            part = (keys >> first) & (2**bits - 1)
            bins = self.over_ranks(counts.new_zeros(2**bits).scatter_add_(0, part, counts))
            up_to = bins.cumsum(0)
            at = torch.searchsorted(up_to, left).clamp(max=2**bits - 1)
            in_bin = bins.take(at)  # indexing would wait for the host
            left = left - (up_to.take(at) - in_bin)
            counts = counts * (part == at)
            found = (found << bits) + at
        value = torch.where(left <= in_bin, _value(LAST_KEY - found), -torch.inf)
        return torch.where(rank < 1, torch.inf, value)

    def quantile(self, of: Callable, q: float, among: Callable | None = None) -> Tensor:
        r"""The value at place \\( \lceil q (n - 1) \rceil \\) of the n sorted ones, counted from 0, float32."""
        count = self.count(among)
        below = torch.ceil(_exact(q * (count.float() - 1)))
        return self.largest(of, (count - below).clamp(min=1), among)

    def top(self, tokens, of: Callable, number: Tensor | int, among: Callable | None = None) -> Tensor:
        """
        Bool `(B, T)`: which of `tokens` are among the `number` largest of the pool.

        Equal values are ordered by [`Tokens.noise`]: by step, completion and position, not by their place in the
        batch. Only copies of the same completion stay together.
        """
        last = self.largest(of, number, among)
        chosen = _among(tokens, among)
        values = of(tokens).float()

        def ties(other):
            return _among(other, among) & (of(other).float() == last)

        above = self.sum(lambda other: _among(other, among) & (of(other).float() > last))
        last_tie = self.largest(lambda other: other.noise(), number - above, ties)
        return chosen & ((values > last) | ((values == last) & (tokens.noise() >= last_tie)))

    def _keys(self, of: Callable, among: Callable | None) -> tuple[Tensor, Tensor]:
        """A key per token, the smallest for the largest value, and 1 if the token counts, else 0."""
        values = [tokens.trained(of(tokens)).float().flatten() for tokens in self.batches]
        chosen = [_among(tokens, among).flatten() for tokens in self.batches]
        return LAST_KEY - _key(torch.cat(values)), _exact(torch.cat(chosen))


def _among(tokens, among: Callable | None) -> Tensor:
    return tokens.mask if among is None else tokens.mask & among(tokens)


def _on_device(number: Tensor | int, like: Tensor) -> Tensor:
    """A number on the device of a tensor, without a copy from the host, which would wait."""
    return number.to(like.dtype) if isinstance(number, Tensor) else like.new_full((), number)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def _key(values: Tensor) -> Tensor:
    """Whole numbers from 0 to 2^32 - 1 in the order of the float32 values; -0.0 is 0.0."""
    bits = values.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits + 2**31), bits) + 2**31


def _value(keys: Tensor) -> Tensor:
    bits = keys - 2**31
    return torch.where(bits < 0, -bits - 2**31, bits).to(torch.int32).view(torch.float32)
