"""Mathematical equality of the answer with the solution, judged by math-verify."""

import logging
import re
import threading
from collections.abc import Callable
from functools import lru_cache

from math_verify import parse, verify


logger = logging.getLogger(__name__)

TIMEOUT = 5  # seconds for each parse and comparison; math-verify can only keep it in the main thread
# What an answer may set equal to its value: `x`, `x_1`, `f(2)`
NAME = re.compile(r"\s*\\?[A-Za-z]+(_\{?\w+\}?)?\s*(\([^()]*\))?\s*")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def math_verify_reward(completions: list, solution: list[str], **kwargs) -> list[float | None]:
    r"""
    1.0 if the content of the completion's last `\boxed{}` equals the solution, else 0.0.

    Args:
        completions (`list[str]` or `list[list[dict[str, str]]]`):
            Completions in the standard or the conversational format.
        solution (`list[str]`):
            Solutions: bare (`\frac{1}{3}`), boxed, or ending in `#### 42`.
        **kwargs:
            What else TRL hands to a reward; `log_extra` gets the extracted answers.

    Returns `None` for a solution that cannot be parsed (TRL then skips the completion), with one warning for each.

    ```python
    >>> math_verify_reward([r"It is \boxed{7+5+12}.", "It is 24."], ["24", "24"])
    [1.0, 0.0]
    ```
    """
    return _rewards(_last_boxed, completions, solution, **kwargs)


def last_number_reward(completions: list, solution: list[str], **kwargs) -> list[float | None]:
    """
    1.0 if the last number of the completion equals the solution, else 0.0; for models that do not box their answers.

    ```python
    >>> last_number_reward(["4 + 5 = 9.", "9, not 8"], ["9", "9"])
    [1.0, 0.0]
    ```
    """
    return _rewards(_last_number, completions, solution, **kwargs)


def _rewards(
    extract: Callable[[str], str | None],
    completions: list,
    solution: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs,
) -> list[float | None]:
    contents = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    answers = [extract(content) for content in contents]
    rewards = [_grade(gold, answer) for gold, answer in zip(map(str, solution), answers, strict=True)]
    if log_extra is not None:
        log_extra("answer", ["" if answer is None else answer for answer in answers])
    return rewards


def _last_boxed(text: str) -> str | None:
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def _last_number(text: str) -> str | None:
    found = NUMBER.findall(text)
    return found[-1].rstrip(",") if found else None


@lru_cache(maxsize=2**16)
def _grade(gold: str, answer: str | None) -> float | None:
    parsed_gold = _parsed_gold(gold)
    if parsed_gold is None:
        return None
    if answer is None or not answer.strip():
        return 0.0
    # math-verify looks at the last side of an equation only, so `1=24` would pass for 24
    sides = (
        [answer] if "=" in gold else [side for side in answer.split("=") if side.strip() and not NAME.fullmatch(side)]
    )
    return float(all(_equal(parsed_gold, side) for side in sides or [answer]))


def _equal(parsed_gold: list, answer: str) -> bool:
    return verify(parsed_gold, parse(rf"\boxed{{{answer}}}", **_limit("parsing_timeout")), **_limit("timeout_seconds"))


@lru_cache(maxsize=2**16)
def _parsed_gold(gold: str) -> list | None:
    text = gold.rsplit("####", 1)[-1].strip()
    in_dollars = re.findall(r"(?<!\\)\$([^$]+)(?<!\\)\$", text)
    # A bare LaTeX solution is read as plain text, and then only its last number counts
    boxed = text if r"\boxed{" in text else rf"\boxed{{{in_dollars[-1] if in_dollars else text}}}"
    parsed = parse(boxed, **_limit("parsing_timeout")) if text else []
    if not parsed:
        logger.warning("the solution %r cannot be parsed; completions for it get no reward", gold)
        return None
    return parsed


def _limit(name: str) -> dict[str, int | None]:
    in_main_thread = threading.current_thread() is threading.main_thread()
    return {name: TIMEOUT if in_main_thread else None}
