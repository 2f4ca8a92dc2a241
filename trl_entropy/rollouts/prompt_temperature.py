"""Sample at a higher temperature where all answers were correct before."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_number
from ..rules.tokens import is_correct
from .rule import TEMPERATURES, Memory, RolloutRule


@dataclass(frozen=True)
class PromptTemperature(RolloutRule):
    r"""
    Sample at a higher temperature where all answers were correct before.

    $$
    T_x = \min(T_{\max}, \; T_0 + c_x \, \delta)
    $$

    with \\( T_0 \\) = TRL's `temperature`, \\( \delta \\) = `step` and \\( T_{\max} \\) = `highest`. \\( c_x \\) is a
    counter for problem \\( x \\). It rises by one after a group in which all completions were correct, up to
    \\( \lceil (T_{\max} - T_0) / \delta \rceil \\), and falls by one, down to 0, after any other group. The loss and
    all measures use the temperature at which a completion was sampled.

    Args:
        step (`float`, *optional*, defaults to `0.05`):
            \\( \delta \ge 0 \\), the step of the temperature.
        highest (`float`, *optional*, defaults to `1.2`):
            \\( T_{\max} > 0 \\); the highest temperature; below \\( T_0 \\) nothing is raised.

    Raises `ValueError` for a parameter out of range.

    Reference: in the style of [ERPO](https://huggingface.co/papers/2511.04800), 2025, whose formula and constants were
    not published: these are ours.
    """

    origin: ClassVar[str] = "style"
    acts: ClassVar[frozenset[str]] = frozenset({TEMPERATURES})

    step: float = 0.05
    highest: float = 1.2

    def __post_init__(self):
        check_number("step", self.step, low=0.0)
        check_number("highest", self.highest, low=0.0)
        if self.highest == 0.0:
            raise ValueError("highest must be above 0: it is a temperature")

    def temperature(self, memory: Memory, key: str, temperature: float) -> float:
        return max(temperature, min(self.highest, temperature + memory.get(key, 0) * self.step))

    def visited(self, memory: Memory, key: str, rewards: Tensor, temperature: float) -> Memory:
        most = math.ceil((self.highest - temperature) / self.step - 1e-9) if self.step else 0  # against rounding
        count = min(memory.get(key, 0), most)
        count = min(count + 1, most) if bool(is_correct(rewards).all()) else count - 1
        others = {other: value for other, value in memory.items() if other != key}
        return others | ({key: count} if count > 0 else {})
