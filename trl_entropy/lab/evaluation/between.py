"""Two evaluations on the same problems, side by side."""

import json
from pathlib import Path

from ...rewards.verifier import Verifier
from .folder import RESULTS
from .paired import Difference, paired_differences
from .run import read_samples


def differences_between(
    first: str, second: str, resamples: int, verifier: Verifier
) -> dict[str, dict[str, Difference]]:
    """
    What the second has more than the first, for each set of problems that both have; of as many samples as both have.

    Args:
        first, second (`str`):
            Output folders of `trl-entropy eval`.
        resamples (`int`):
            Of the bootstrap.
        verifier ([`~rewards.Verifier`]):
            Compares answers.

    Raises `ValueError` for a folder that holds no results, and if the problems are not the same.
    """
    before, after = _sets(first), _sets(second)
    names = [name for name in before if name in after]
    if len(before) == len(after) == 1:
        pairs = {next(iter(before)): (*before.values(), *after.values())}
    else:
        pairs = {name: (before[name], after[name]) for name in names}
    if not pairs:
        raise ValueError(
            f"{first!r} has {', '.join(before)}, and {second!r} has {', '.join(after)}: nothing in common"
        )
    return {name: _differences(name, *pair, resamples, verifier) for name, pair in pairs.items()}


def _differences(name: str, before: Path, after: Path, resamples: int, verifier: Verifier) -> dict[str, Difference]:
    settings = [_read(folder / RESULTS)["settings"] for folder in (before, after)]
    if settings[0]["problems"] != settings[1]["problems"]:
        raise ValueError(f"the problems of {name} are not the same in {str(before)!r} and {str(after)!r}")
    num_samples = min(one["num_samples"] for one in settings)
    samples = [read_samples(folder, num_samples, verifier) for folder in (before, after)]
    return paired_differences(*samples, resamples=resamples)


def _sets(folder: str) -> dict[str, Path]:
    """The folders with results, by the name of the set of problems: the folder itself, or those in it."""
    places = [Path(folder) / RESULTS, *sorted(Path(folder).glob(f"*/{RESULTS}"))]
    found = {name: file.parent for file in places if file.is_file() for name in _read(file)["results"]}
    if not found:
        raise ValueError(f"{folder!r} holds no {RESULTS} of a finished evaluation")
    return found


def _read(file: Path) -> dict:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not {"results", "settings"} <= content.keys():
        raise ValueError(f"{str(file)!r} was not written by this version of trl-entropy eval: run it again")
    return content
