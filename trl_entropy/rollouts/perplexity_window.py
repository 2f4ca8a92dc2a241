"""Train on the prompts inside a perplexity window that slides from low to high."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..checks import check_number
from .rule import PROBLEMS, RolloutRule


@dataclass(frozen=True)
class PerplexityWindow(RolloutRule):
    r"""
    Train on the prompts inside a perplexity window that slides from low to high.

    Of \\( |B| \\) candidates, sorted by their perplexity under the policy that is about to sample,

    $$
    P_i = \exp\Big(-\tfrac{1}{|x_i|} \sum_t \log \pi_\theta(x_{i,t} \mid x_{i,<t})\Big), \qquad
    l = \lfloor \rho \, (|B| - K) \rfloor,
    $$

    those in places \\( l \\) to \\( l + K - 1 \\) are trained on. \\( \rho \\) is the share of the run's steps that
    are complete, \\( K \\) the number of prompts in a rollout batch, and \\( |B| = K / s \\) with \\( s \\) = `share`,
    rounded up, and at most all problems. The perplexity is at the sampling temperature, over all tokens of the prompt
    except the first.

    Args:
        share (`float`, *optional*, defaults to `0.2`):
            \\( s \in (0, 1] \\), the share of the candidates that is trained on.

    Raises `ValueError` for a share out of range.

    Reference: [PREPO](https://huggingface.co/papers/2511.00794), 2025 (the choice of prompts; its weight is
    `relative_entropy`). The size of \\( B \\) was not published; 0.2 is the baseline's share.
    """

    acts: ClassVar[frozenset[str]] = frozenset({PROBLEMS})

    share: float = 0.2

    def __post_init__(self):
        check_number("share", self.share, low=0.0, high=1.0)
        if self.share == 0.0:
            raise ValueError("share must be above 0: it is the share of the candidates that is trained on")

    def candidates(self, count: int) -> int:
        return math.ceil(round(count / self.share, 9))  # 42 / 0.35 is a little more than 120

    def choose(self, perplexities: Callable[[], Sequence[float]], candidates: int, count: int, progress: float):
        values = perplexities()
        order = sorted(range(candidates), key=lambda place: (values[place], place))
        low = math.floor(progress * (candidates - count))
        return order[low : low + count]
