"""What is logged beside TRL's metrics, and what is only recorded."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from statistics import fmean


# What `basic` logs, besides the controllers and the knobs that somebody turns
BASIC = ("entropy/positive_advantage", "entropy/negative_advantage", "groups/all_correct", "groups/all_wrong")


class Log:
    """
    Values of optimizer steps: some are logged at once, the others wait to be recorded.

    Args:
        level (`str`):
            "none" drops all; "basic" logs those of [`BASIC`], of the controllers and of `knobs`; "full" logs all.
        knobs (`Collection[str]`):
            The knobs that controllers turn.
        write (`Callable[[dict[str, float]], None]`):
            Logs values beside TRL's.
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
        """The means of what was not logged since the last call."""
        means = {name: fmean(values) for name, values in sorted(self._waiting.items())}
        self._waiting.clear()
        return means

    def _shows(self, name: str) -> bool:
        return self.level == "full" or name in self.basic or name.startswith("controllers/")
