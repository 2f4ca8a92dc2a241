"""A folder of samples on disk, one JSON line per sample, so that an interrupted run can resume."""

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
    One response, its score and its verdict.

    Args:
        problem, sample (`int`):
            Counted from 0.
        prompt, solution (`str`):
            The problem as text, and its solution.
        response (`str`):
            The text of the response.
        answer (`str`, *optional*):
            The answer found in the response.
        correct (`bool`):
            Whether the answer equals the solution.
        reason (`str`):
            The verdict; one of [`~rewards.REASONS`].
        length (`int`):
            Number of tokens, including the end token.
        logprob, entropy, prompt_entropy (`float`):
            As in [`~evaluation.scoring.ResponseScore`]; a prompt of one token has no entropy.
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
        """The numbers of problem and sample."""
        return SampleId(self.problem, self.sample)


class Folder:
    """
    The samples of one model on one set of problems.

    Args:
        path (`Path`):
            The folder; created if it does not exist.
        part (`int`, *optional*):
            The number of the process, which writes its own file, to be joined later; by default there is only one
            process.
    """

    def __init__(self, path: Path, part: int | None = None):
        self.path = path
        self._own = path / (SAMPLES if part is None else f"samples.part{part}.jsonl")

    def claim(self, settings: Mapping[str, object]) -> None:
        """
        Write the settings, or compare them with those of existing samples; the number of samples may grow.

        Raises `ValueError` if settings differ, if the folder has files of these names from elsewhere, or if it cannot
        be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"the folder {str(self.path)!r} cannot be created: {error.strerror}") from error
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
                    f"{str(self.path)!r} holds samples with other settings: {changes}. Set another output_dir"
                )
        else:
            found = [name for name in (SAMPLES, RESULTS, PASS_AT_K, CALIBRATION) if (self.path / name).exists()]
            if found:
                raise ValueError(
                    f"{str(self.path)!r} holds {', '.join(found)} but no {SETTINGS} of an evaluation: set another "
                    "output_dir"
                )
        _write(file, json.dumps(settings, indent=1) + "\n")

    def join(self) -> list[Line]:
        """Join the samples of all parts into one file, and return them in the order of problems."""
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
        """Append samples and flush them to disk at once."""
        with open(self._own, "a", encoding="utf-8") as file:
            file.write("".join(map(_dumped, lines)))
            file.flush()
            os.fsync(file.fileno())


def read_lines(file: Path) -> list[Line]:
    """
    The samples in a file; the last line is ignored if it was cut off.

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
    """Write a file completely or not at all."""
    with written(file, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")


def _settings_in(file: Path) -> dict:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # not JSON, or not text
        settings = None
    if not isinstance(settings, dict) or "num_samples" not in settings:
        raise ValueError(f"{str(file)!r} does not belong to an evaluation: set another output_dir")
    return settings
