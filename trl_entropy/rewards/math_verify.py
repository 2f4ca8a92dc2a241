"""Rewards for answers that are mathematically equal to the solution."""

import logging
from collections.abc import Callable, Sequence

from .answers import SOURCES, answer_in, gold_in
from .messages import content, policy_texts
from .plain import LONGEST, is_blank, is_same
from .verifier import REASONS, shared_verifier


logger = logging.getLogger(__name__)

# Cells that mean a missing value; `none`, `no` and `NA` are words
MISSING = ("", "nan", "n/a", "#n/a", "<na>", "null")
ANYWHERE = ("boxed", "announced", "hashes", "last_maths")


class MathVerifyReward:
    r"""
    1.0 if the completion's answer equals the solution, else 0.0; math-verify compares them in separate processes.

    Args:
        answer_from (`Sequence[str]`, *optional*, defaults to `("boxed",)`):
            Where to look for the answer; the first source that finds one counts. "boxed" is the last `\boxed{}`,
            "all_boxed" the last ones that only commas or "and" separate, "announced" the text after "answer is" or
            "answer:", "hashes" the text after `####`, "last_latex" and "last_number" the last of each, "last_maths"
            the last of either, or the whole text if it has no words.
        deadline (`float`, *optional*, defaults to `3.0`):
            Seconds per comparison, after which its process is killed. The answer scores 0 if a second try takes as
            long.
        workers (`int`, *optional*):
            Number of processes that compare; by default the number of this rank's cores, at most 8.
        batch_deadline (`float`, *optional*, defaults to `60.0`):
            Seconds for all comparisons of one call; answers that are not graded by then score 0.

    Raises `ValueError` for an unknown source, or a deadline or number of workers that is not positive.
    """

    __name__ = "math_verify_reward"
    # This package's trainers call it with more facts about the rollout
    reads_rollout = True

    def __init__(
        self,
        answer_from: Sequence[str] = ("boxed",),
        deadline: float = 3.0,
        workers: int | None = None,
        batch_deadline: float = 60.0,
    ):
        answer_from = (answer_from,) if isinstance(answer_from, str) else tuple(answer_from)
        wrong = [source for source in answer_from if source not in SOURCES]
        if wrong or not answer_from:
            raise ValueError(f"answer_from takes one or more of {', '.join(SOURCES)}; got {wrong or 'none'}")
        self.answer_from = answer_from
        self.verifier = shared_verifier(deadline, workers, batch_deadline)
        self._warned: set[str] = set()

    def __call__(
        self,
        completions: list,
        solution: list,
        prompts: list | None = None,
        policy_text: list[str] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs,
    ) -> list[float | None]:
        """
        A reward per completion; None where the solution cannot be read, with one warning per solution.

        Args:
            completions (`list[str]` or `list[list[dict[str, str]]]`):
                Completions in the standard or the conversational format.
            solution (`list`):
                Solutions: bare (`\\frac{1}{3}`), boxed, or ending in `#### 42`; a list if several are right.
            policy_text (`list[str]`, *optional*):
                The text to grade instead of the completions: the policy's own last consecutive tokens.
            **kwargs:
                TRL's other arguments to a reward function.
        """
        answers, verdicts = self.verdicts(policy_texts(completions, policy_text), solution)
        for row, verdict in enumerate(verdicts):
            if verdict == "unparsable_gold":
                self._warn(solution[row], prompts[row] if prompts else None)
        if log_extra is not None:
            log_extra("answer", ["" if answer is None else answer for answer in answers])
            log_extra("verdict", verdicts)
        if log_metric is not None and verdicts:
            for reason in REASONS:
                log_metric(f"rewards/{self.__name__}/{reason}", verdicts.count(reason) / len(verdicts))
        return [None if verdict == "unparsable_gold" else float(verdict == "correct") for verdict in verdicts]

    def verdicts(self, completions: list, solution: list) -> tuple[list[str | None], list[str]]:
        """The answer found in each completion, and its verdict."""
        answers = [answer_in(content(completion), self.answer_from) for completion in completions]
        verdicts = self.verifier.verdicts([golds_in(given) for given in solution], answers)
        return answers, [
            "correct" if verdict != "correct" and is_written_alike(given, answer) else verdict
            for given, answer, verdict in zip(solution, answers, verdicts, strict=True)
        ]

    def _warn(self, solution: object, prompt: object) -> None:
        if str(solution) not in self._warned:
            self._warned.add(str(solution))
            row = "" if prompt is None else f" of the problem {str(prompt)[-200:]!r}"
            logger.warning(
                "the solution %r%s is missing or cannot be read; only an identical text gets a reward", solution, row
            )

    def __reduce__(self):
        verifier = self.verifier
        return type(self), (self.answer_from, verifier.deadline, verifier.workers, verifier.batch_deadline)


class LastNumberReward(MathVerifyReward):
    """1.0 if the last number of the completion equals the solution, else 0.0."""

    __name__ = "last_number_reward"

    def __init__(self):
        super().__init__(answer_from=("last_number",))

    def __reduce__(self):
        return LastNumberReward, ()


def answers_of(completions: list, rewards: Sequence[Callable]) -> list[str | None]:
    """
    The answer in each completion; None where there is none.

    The sources are those of the first reward that has an `answer_from`. If no reward has one, the answer is in a box,
    after "answer is" or `####`, or else the last LaTeX or number.
    """
    sources = next((reward.answer_from for reward in rewards if hasattr(reward, "answer_from")), ANYWHERE)
    return [answer_in(content(completion), sources) for completion in completions]


def golds_in(solution: object) -> list[str]:
    """The golds in a cell of the solution column; none if its value is missing."""
    return [gold_in(cell) for cell in _cells(solution)]


def is_written_alike(solution: object, answer: str | None) -> bool:
    """Whether the answer equals the whole text of the cell, or of an entry of its list, readable or not."""
    if answer is None:
        return False
    cells = [cell for cell in _cells(solution) if not is_blank(cell)]
    return answer in cells or len(answer) <= LONGEST and any(is_same(cell, answer) for cell in cells)


def _cells(solution: object) -> list[str]:
    cells = [
        str(cell) for cell in (solution if isinstance(solution, list | tuple) else [solution]) if cell is not None
    ]
    return [cell for cell in cells if cell.strip() != "None" and cell.strip().casefold() not in MISSING]


_math_verify = MathVerifyReward()
_last_number = LastNumberReward()


def math_verify_reward(completions: list, solution: list, **kwargs) -> list[float | None]:
    r"""
    1.0 if the content of the completion's last `\boxed{}` equals the solution, else 0.0.

    [`MathVerifyReward`] with its defaults.

    ```python
    >>> math_verify_reward([r"It is \boxed{7+5+12}.", "It is 24."], ["24", "24"])
    [1.0, 0.0]
    ```
    """
    return _math_verify(completions, solution, **kwargs)


def last_number_reward(completions: list, solution: list, **kwargs) -> list[float | None]:
    """
    1.0 if the last number of the completion equals the solution, else 0.0; for models that do not box their answers.

    ```python
    >>> last_number_reward(["4 + 5 = 9.", "9, not 8"], ["9", "9"])
    [1.0, 0.0]
    ```
    """
    return _last_number(completions, solution, **kwargs)


for _reward, _made in ((math_verify_reward, _math_verify), (last_number_reward, _last_number)):
    _reward.answer_from, _reward.reads_rollout = _made.answer_from, True
