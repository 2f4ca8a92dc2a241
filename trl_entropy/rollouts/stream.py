"""The problems of a run, in order."""

import torch


class ProblemStream:
    """
    An endless stream of problems: every pass is a new permutation of all of them.

    The same `seed` gives the same stream, and the stream can be saved at any point. No batch has a problem twice,
    unless the batch is larger than the set.

    Args:
        problems (`list[int]`):
            Their row numbers in the dataset.
        seed (`int`):
            Seed for the permutations.
    """

    def __init__(self, problems: list[int], seed: int):
        self.problems = problems
        self.seed = seed
        self.taken = 0
        self._passes = 0
        self._next: list[int] = []

    @property
    def passes(self) -> float:
        """Number of passes over all problems so far."""
        return self.taken / len(self.problems)

    def take(self, count: int) -> list[int]:
        """The next `count` problems."""
        taken, behind = [], []
        while len(taken) < count:
            if not self._next:
                self._next = self._permutation()
            problem = self._next.pop(0)
            # a problem that this batch already has from the previous pass waits for the next batch
            again = problem in taken and count <= len(self.problems)
            (behind if again else taken).append(problem)
        self._next = behind + self._next
        self.taken += count
        return taken

    def _permutation(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed + self._passes)
        self._passes += 1
        return [self.problems[place] for place in torch.randperm(len(self.problems), generator=generator).tolist()]

    def state_dict(self) -> dict:
        """The current position."""
        return {"taken": self.taken, "passes": self._passes, "next": self._next}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict()`."""
        self.taken, self._passes, self._next = state["taken"], state["passes"], list(state["next"])
