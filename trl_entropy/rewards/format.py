r"""Whether there is an answer at all."""

from .answers import answer_in
from .math_verify import content


def boxed_format_reward(completions: list, **kwargs) -> list[float]:
    r"""
    1.0 if the completion's last `\boxed{}` is closed and not empty, else 0.0.

    ```python
    >>> boxed_format_reward([r"It is \boxed{7}.", r"It is \boxed{7"])
    [1.0, 0.0]
    ```
    """
    return [float(answer_in(content(completion)) is not None) for completion in completions]
