"""Combine several rounds of sampling into one batch: select groups, and pad them to one length."""

import torch
from torch import Tensor


Batch = dict[str, Tensor]


def joined(batches: list[Batch], padding: int) -> Batch:
    """
    The rows of several batches, `(B, ...)` each, concatenated.

    Rows are padded to the longest one as [`padding_of`] says. A scalar for the whole batch is taken from the first
    batch.
    """
    whole = {}
    for name, first in batches[0].items():
        if first.dim() == 0:
            whole[name] = first
            continue
        parts = [batch[name] for batch in batches]
        if first.dim() == 2:
            width = max(part.shape[1] for part in parts)
            parts = [_widened(part, width, *padding_of(name, padding)) for part in parts]
        whole[name] = torch.cat(parts)
    return whole


def padding_of(name: str, padding: int) -> tuple[int, bool]:
    """
    A column's padding value, and whether it goes on the left: `padding` for ids, 0 for all else; prompts on the left.

    Importance-sampling ratios are padded with 1, as in TRL: the vespo loss also multiplies the ratios of masked
    tokens.
    """
    fill = padding if name.endswith("_ids") else int(name == "importance_sampling_ratio")
    return fill, name.startswith("prompt_")


def picked(batch: Batch, rows: Tensor | slice) -> Batch:
    """These rows of a batch, in this order."""
    return {name: values[rows] if values.dim() else values for name, values in batch.items()}


def picked_groups(batch: Batch, groups: Tensor, size: int) -> Batch:
    """The rows of these groups of `size` rows each, in this order."""
    return picked(batch, (groups.unsqueeze(1) * size + torch.arange(size, device=groups.device)).flatten())


class Collected:
    """
    The groups of a rollout, from one round of sampling or several, on all ranks.

    Args:
        whole (`int`):
            Number of groups of the rollout.
    """

    def __init__(self, whole: int):
        self.whole = whole
        self.kept = self.sampled = 0
        self._rounds: list[tuple[Batch, Tensor, list, Tensor]] = []

    @property
    def missing(self) -> int:
        """Number of groups still to sample."""
        return max(self.whole - self.kept, 0)

    def means(self) -> dict[str, float]:
        """Values to log: number of sampled groups, share of kept groups, number of groups that only fill up."""
        return {
            "rollout/groups_sampled": float(self.sampled),
            "rollout/groups_kept": self.kept / self.sampled,
            "rollout/groups_filled": float(self.missing),
        }

    def add(self, batch: Batch, rewards: Tensor, completions: list, keep: Tensor) -> None:
        """Add a round: rows `(groups * G, ...)`, rewards `(groups, G)`, completions by row, and the groups to keep."""
        self.kept += int(keep.sum())
        self.sampled += len(keep)
        self._rounds.append((batch, rewards, completions, keep))

    def rollout(self, padding: int) -> tuple[Batch, Tensor, list]:
        """The first kept groups, filled up with others to the full number; ids are padded with `padding`."""
        batches, rewards, completions, keep = zip(*self._rounds, strict=True)
        rewards, keep = torch.cat(rewards), torch.cat(keep)
        groups = torch.cat([keep.nonzero().flatten(), (~keep).nonzero().flatten()])[: self.whole]
        size, texts = rewards.shape[1], [text for part in completions for text in part]
        texts = [text for group in groups.tolist() for text in texts[group * size : (group + 1) * size]]
        return picked_groups(joined(list(batches), padding), groups, size), rewards[groups], texts


def refill(collected: Collected, multiple: int) -> int:
    """
    Number of groups to sample next.

    It is the number that should give the missing groups at the share kept so far, at most a whole rollout, rounded up
    to a multiple of `multiple`.
    """
    likely = -(-collected.missing * collected.sampled // max(collected.kept, 1))
    return -(-min(collected.whole, likely) // multiple) * multiple


def _widened(values: Tensor, width: int, fill: int, left: bool) -> Tensor:
    more = width - values.shape[1]
    return torch.nn.functional.pad(values, (more, 0) if left else (0, more), value=fill) if more else values
