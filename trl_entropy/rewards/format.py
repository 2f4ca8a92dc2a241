r"""Reward a completion for having an answer at all."""

from .answers import answer_in
from .messages import policy_texts


def boxed_format_reward(completions: list, policy_text: list[str] | None = None, **kwargs) -> list[float]:
    r"""
    1.0 if the completion's last `\boxed{}` is closed and not empty, else 0.0.

    ```python
    >>> boxed_format_reward([r"It is \boxed{7}.", r"It is \boxed{7"])
    [1.0, 0.0]
    ```
    """
    return [float(answer_in(text) is not None) for text in policy_texts(completions, policy_text)]


boxed_format_reward.reads_rollout = True
