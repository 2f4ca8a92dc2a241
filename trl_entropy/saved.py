"""Floor 0: what a saved state has to look like."""

from collections.abc import Mapping
from typing import Any


def check_saved(source: str, state: Any, form: Any, name: str = "it") -> None:
    """
    Raise `ValueError` unless a saved state has a form.

    Args:
        source (`str`):
            Where it was saved; stands in the message.
        state:
            What JSON gave.
        form:
            A type, where `float` is any number; `[form]`, a list of any length; `{str: form}`, a mapping with any
            keys; or a mapping of the keys that there have to be, each with its form.
        name (`str`, *optional*):
            What it is; stands in the message.
    """
    kind = form if isinstance(form, type) else type(form)
    number = isinstance(state, int) and kind is float
    if isinstance(state, bool) or not (isinstance(state, kind) or number):
        raise damaged(source, f"{name} is {type(state).__name__}, not {kind.__name__}")
    if kind is list and form is not list:
        for item in state:
            check_saved(source, item, form[0], f"an entry of {name}")
    if isinstance(form, Mapping):
        parts = dict.fromkeys(state, form[str]) if str in form else form
        for key, part in parts.items():
            if key not in state:
                raise damaged(source, f"{name} has no {key}")
            check_saved(source, state[key], part, key if name == "it" else f"{name}.{key}")


def damaged(source: str, why: object) -> ValueError:
    """The error for a saved state that cannot be read."""
    return ValueError(f"{source} is damaged ({why}): resume from another checkpoint")
