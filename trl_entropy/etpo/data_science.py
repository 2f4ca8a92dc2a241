"""The environment from the paper: write a classifier for a table, and see the error if it fails."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile

from datasets import Dataset

from ..checks import lab
from ..rewards.pool import Pool, default_workers


GRADER = "trl_entropy.lab.build_model"
PROMPT = """\
# Table {name}: x_train has the shape {shape}, y_train one of {classes} classes for each row, both numpy arrays.
# Complete the function with scikit-learn. It returns a fitted model with predict_proba; it is scored by ROC-AUC.
# Import what you need inside of the function.
"""
HEAD = "def build_model(x_train, y_train):\n"
AGAIN = "\n\n# {error}\n# Write the whole function again, without this error.\n"


class DataScience:
    """
    Write the body of `build_model(x_train, y_train)`; in the style of the paper's environment.

    The code runs in the verifier's processes, behind [`~rewards.fence.fenced`]. The reward is the mean ROC-AUC over
    five random halves of the table, which ends the episode. After an error it is -1, and the environment shows the
    message and asks for the function again.

    Args:
        attempts (`int`, *optional*, defaults to `5`):
            Number of attempts per table; 5 in the paper.
        deadline (`float`, *optional*, defaults to `60.0`):
            Seconds per attempt, after which its process is killed. A second try has the same time.
        workers (`int`, *optional*):
            Number of attempts that run at the same time; by default the number of this rank's cores, at most 8.

    Raises `ValueError` without scikit-learn, and `RuntimeError` if code cannot be fenced in.
    """

    def __init__(self, attempts: int = 5, deadline: float = 60.0, workers: int | None = None):
        if attempts < 1 or not deadline > 0:
            raise ValueError(f"attempts must be >= 1 and deadline > 0, got {attempts} and {deadline}")
        self.tables = lab("build_model", "the environment data_science").TABLES
        self.attempts, self.pool = attempts, _pool(workers or default_workers(), deadline)

    def dataset(self) -> Dataset:
        """One row per table; its prompt is the name."""
        return Dataset.from_dict({"prompt": list(self.tables)})

    def reset(self, row: Mapping) -> str:
        self.name, self.left = row["prompt"], self.attempts
        x, y = self.tables[self.name](return_X_y=True)
        shape = (len(x) // 2, x.shape[1])
        return PROMPT.format(name=self.name, shape=shape, classes=len(set(y))) + HEAD

    def step(self, text: str) -> tuple[str, float, bool]:
        return self.step_together([self], [text])[0]

    @staticmethod
    def step_together(environments: Sequence["DataScience"], texts: Sequence[str]) -> list[tuple[str, float, bool]]:
        """One step in each environment: the code runs in `workers` processes at a time."""
        pairs = [(one.name, code_in(text)) for one, text in zip(environments, texts, strict=True)]
        verdicts = environments[0].pool.grade(pairs)
        return [one._told(verdict) for one, verdict in zip(environments, verdicts, strict=True)]

    def _told(self, verdict: str) -> tuple[str, float, bool]:
        self.left -= 1
        if verdict.startswith("{") and "score" in (found := json.loads(verdict)):
            return "Done.", found["score"], True
        error = found["error"] if verdict.startswith("{") else f"It ended by {verdict}: too slow, or too large."
        return AGAIN.format(error=error) + HEAD, -1.0, self.left == 0


def code_in(text: str) -> str:
    """The function: the indented lines at the start of a text are its body, unless the text has the whole function."""
    lines = [line for line in text.expandtabs(4).splitlines() if not line.startswith("```")]
    if any(line.startswith(HEAD[:15]) for line in lines):
        return "\n".join(lines)
    return HEAD + "\n".join(takewhile(lambda line: not line.strip() or line.startswith(" "), lines))


@lru_cache
def _pool(workers: int, deadline: float) -> Pool:
    """One pool for all environments with these settings. A batch may take as long as its attempts need."""
    return Pool(workers, deadline, float("inf"), GRADER)
