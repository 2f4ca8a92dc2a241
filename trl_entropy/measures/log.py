"""Decide which values are logged beside TRL's metrics and which are only recorded."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from statistics import fmean


# The values that `basic` logs, besides the controllers and the knobs that they turn
BASIC = ("entropy/positive_advantage", "entropy/negative_advantage", "groups/all_correct", "groups/all_wrong")


class Log:
    """
    Values of optimizer steps: some are logged at once, the others are kept to be recorded.

    Args:
        level (`str`):
            "none" drops all; "basic" logs the values in [`BASIC`], of the controllers and of `knobs`; "full" logs all.
        knobs (`Collection[str]`):
            The knobs that controllers turn.
        write (`Callable[[dict[str, float]], None]`):
            Logs values beside TRL's metrics.
    """

    def __init__(self, level: str, knobs: Collection[str], write: Callable[[dict[str, float]], None]):
        self.level = level
        self.basic = {*BASIC, *(f"knobs/{name}" for name in knobs)}
        self.write = write
        self._waiting: dict[str, list[float]] = defaultdict(list)

    def add(self, values: Mapping[str, float]) -> None:
        """Add values of one optimizer step."""
        if self.level == "none":
            return
        shown = {name: value for name, value in values.items() if self._shows(name)}
        self.write(shown)
        for name in values.keys() - shown.keys():
            self._waiting[name].append(values[name])

    def take(self) -> dict[str, float]:
        """The means of the values not logged since the last call."""
        means = {name: fmean(values) for name, values in sorted(self._waiting.items())}
        self._waiting.clear()
        return means

    def _shows(self, name: str) -> bool:
        return self.level == "full" or name in self.basic or name.startswith("controllers/")
