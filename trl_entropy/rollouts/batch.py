"""Rollouts of several rounds as one batch: groups are picked, and padded to one length."""

import torch
from torch import Tensor


Batch = dict[str, Tensor]


def joined(batches: list[Batch], padding: int) -> Batch:
    """
    The rows of several batches, `(B, ...)` each, under one another.

    They are padded to the longest as [`padding_of`] says. A number for the whole batch is that of the first one.
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
    What a column is padded with, and whether on the left: ids with `padding`, all else with 0; prompts on the left.

    Importance-sampling ratios are padded with 1, as TRL does: the vespo loss multiplies those of masked tokens too.
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
        """How many groups there are still to sample."""
        return max(self.whole - self.kept, 0)

    def means(self) -> dict[str, float]:
        """What to log: groups sampled, the share of them that was kept, and groups that only fill up."""
        return {
            "rollout/groups_sampled": float(self.sampled),
            "rollout/groups_kept": self.kept / self.sampled,
            "rollout/groups_filled": float(self.missing),
        }

    def add(self, batch: Batch, rewards: Tensor, completions: list, keep: Tensor) -> None:
        """A round: rows `(groups * G, ...)`, rewards `(groups, G)`, completions by row, and which groups to keep."""
        self.kept += int(keep.sum())
        self.sampled += len(keep)
        self._rounds.append((batch, rewards, completions, keep))

    def rollout(self, padding: int) -> tuple[Batch, Tensor, list]:
        """The first groups that were kept, filled up with others to the whole; ids are padded with `padding`."""
        batches, rewards, completions, keep = zip(*self._rounds, strict=True)
        rewards, keep = torch.cat(rewards), torch.cat(keep)
        groups = torch.cat([keep.nonzero().flatten(), (~keep).nonzero().flatten()])[: self.whole]
        size, texts = rewards.shape[1], [text for part in completions for text in part]
        texts = [text for group in groups.tolist() for text in texts[group * size : (group + 1) * size]]
        return picked_groups(joined(list(batches), padding), groups, size), rewards[groups], texts


def refill(collected: Collected, multiple: int) -> int:
    """
    How many groups to sample next.

    As many as the share of kept groups so far makes likely to give the missing ones, at most the whole rollout, in
    multiples of `multiple`.
    """
    likely = -(-collected.missing * collected.sampled // max(collected.kept, 1))
    return -(-min(collected.whole, likely) // multiple) * multiple


def _widened(values: Tensor, width: int, fill: int, left: bool) -> Tensor:
    more = width - values.shape[1]
    return torch.nn.functional.pad(values, (more, 0) if left else (0, more), value=fill) if more else values
