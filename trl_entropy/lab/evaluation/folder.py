"""A folder of samples on disk: one JSON line for each, so that an interrupted run resumes."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ...written import written
from .sampling import SampleId


SAMPLES, SETTINGS, RESULTS = "samples.jsonl", "settings.json", "results.json"
PASS_AT_K, CALIBRATION = "pass_at_k.png", "calibration.png"


@dataclass(frozen=True)
class Line:
    """
    One response, and what is known about it.

    Args:
        problem, sample (`int`):
            Counted from 0.
        prompt, solution (`str`):
            The problem as text, and its solution.
        response (`str`):
            Its text.
        answer (`str`, *optional*):
            The answer found in it.
        correct (`bool`):
            Whether that equals the solution.
        reason (`str`):
            The verdict; one of [`~rewards.REASONS`].
        length (`int`):
            Tokens, with the one that ends the response.
        logprob, entropy, prompt_entropy (`float`):
            Those of [`~evaluation.scoring.ResponseScore`]; a prompt of one token has no entropy.
    """

    problem: int
    sample: int
    prompt: str
    solution: str
    response: str
    answer: str | None
    correct: bool
    reason: str
    length: int
    logprob: float
    entropy: float
    prompt_entropy: float | None

    @property
    def id(self) -> SampleId:
        """Its place."""
        return SampleId(self.problem, self.sample)


class Folder:
    """
    The samples of one model on one set of problems.

    Args:
        path (`Path`):
            The folder; made if it is not there.
        part (`int`, *optional*):
            The process that writes a file of its own, to be joined later; by default there is only one.
    """

    def __init__(self, path: Path, part: int | None = None):
        self.path = path
        self._own = path / (SAMPLES if part is None else f"samples.part{part}.jsonl")

    def claim(self, settings: Mapping[str, object]) -> None:
        """
        Write the settings, or compare them with those of the samples that are here; more samples may be asked for than
        before.

        Raises `ValueError` with what differs, if the folder holds files of these names that no evaluation has left,
        and if it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"the folder {str(self.path)!r} cannot be made: {error.strerror}") from error
        file = self.path / SETTINGS
        if file.exists():
            known = _settings_in(file)
            differing = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
            if "num_samples" in differing and known["num_samples"] < settings["num_samples"]:
                differing.remove("num_samples")
            sampled = [file for file in self.path.glob("samples*.jsonl") if file.stat().st_size]
            if differing and sampled:
                changes = "; ".join(
                    f"{name} was {known.get(name)!r}, now {settings.get(name)!r}" for name in differing
                )
                raise ValueError(
                    f"{str(self.path)!r} holds samples of other settings: {changes}. Give another output_dir"
                )
        else:
            found = [name for name in (SAMPLES, RESULTS, PASS_AT_K, CALIBRATION) if (self.path / name).exists()]
            if found:
                raise ValueError(
                    f"{str(self.path)!r} holds {', '.join(found)} and no {SETTINGS} of an evaluation: "
                    "give another output_dir"
                )
        _write(file, json.dumps(settings, indent=1) + "\n")

    def join(self) -> list[Line]:
        """All samples, those of the parts among them, in the order of problems; they are in one file afterwards."""
        parts = sorted(self.path.glob("samples.part*.jsonl"))
        whole = self.path / SAMPLES
        lines = {line.id: line for file in (*parts, whole) if file.exists() for line in read_lines(file)}
        ordered = [lines[one] for one in sorted(lines)]
        _write(whole, "".join(_dumped(line) for line in ordered))
        for file in parts:
            file.unlink()
        return ordered

    def count(self) -> int:
        """How many samples are on disk."""
        return sum(file.read_bytes().count(b"\n") for file in self.path.glob("samples*.jsonl"))

    def append(self, lines: Iterable[Line]) -> None:
        """Add samples at once, and keep them whatever happens next."""
        with open(self._own, "a", encoding="utf-8") as file:
            file.write("".join(map(_dumped, lines)))
            file.flush()
            os.fsync(file.fileno())


def read_lines(file: Path) -> list[Line]:
    """
    The samples in a file; the last one is left out if it was cut.

    Raises `ValueError` for any other line that is not a sample.
    """
    lines = []
    *whole, _ = file.read_text(encoding="utf-8").split("\n")
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(Line(**json.loads(text)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} of {str(file)!r} is not a sample ({error}): remove it") from error
    return lines


def _dumped(line: Line) -> str:
    return json.dumps(asdict(line), allow_nan=False) + "\n"


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    with written(file, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")


def _settings_in(file: Path) -> dict:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # not JSON, or not text
        settings = None
    if not isinstance(settings, dict) or "num_samples" not in settings:
        raise ValueError(f"{str(file)!r} is not of an evaluation: give another output_dir")
    return settings
