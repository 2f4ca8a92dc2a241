"""A grader that is ready at once, for tests of the processes around it: integers, and polynomials in k."""

import math
import os
import re
from collections.abc import Callable


K = 1_000_003  # where they are compared


def prepared() -> Callable[[str, str], str]:
    """The verdict. An answer with `die` ends its process; a tower of powers is never computed to its end."""
    return lambda gold, answer: "correct" if value(gold) == value(answer) else "wrong"


def value(text: str) -> int:
    if "die" in text:
        os._exit(3)
    text = text.replace("^", "**").translate(str.maketrans("{}", "()"))
    text = re.sub(r"(\d+)!", r"factorial(\1)", text)
    text = re.sub(r"(\d)(?=[k(])", r"\1*", text)
    return eval(text, {"k": K, "factorial": math.factorial})
