"""Check the user's input, with errors that say what is allowed."""

import importlib
import inspect
import math
import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral
from types import ModuleType
from typing import Any


def unknown(what: str, name: str, allowed: Iterable[str], lists: str = "trl-entropy ls") -> ValueError:
    """The error for an unknown name: it names the nearest known one, and all known ones or what lists them."""
    allowed = sorted(allowed)
    close = get_close_matches(str(name), allowed, n=1, cutoff=0.65)
    near = close or [one for one in allowed if one.startswith(str(name))]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = f" Available: {', '.join(allowed) or 'none'}" if len(allowed) <= 30 else f" `{lists}` lists all."
    return ValueError(f"unknown {what} {name!r}.{hint}{listed}")


def bind(what: str, factory: Callable, parameters: Mapping) -> object:
    """`factory(**parameters)`; the error for a wrong parameter names it and the nearest one."""
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{what} must be a mapping of parameters to values, got {parameters!r}")
    if inspect.isclass(factory):
        _check_made(what, factory)
    taken = inspect.signature(factory).parameters.values()
    allowed = [one.name for one in taken if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    takes_all = any(one.kind is one.VAR_KEYWORD for one in taken)
    for name in parameters:
        if name not in allowed and not takes_all:
            raise unknown(f"parameter of {what}", name, allowed)
    needed = (one.name for one in taken if one.name in allowed and one.default is one.empty)
    if missing := ", ".join(name for name in needed if name not in parameters):
        raise ValueError(f"{what} has no value for {missing}: set it")
    try:
        return factory(**parameters)
    except ValueError as error:
        raise ValueError(f"{error} (in {what})") from error


def _check_made(what: str, factory: type) -> None:
    """Raise `ValueError` for a class that cannot be made, or whose parameters are not those that it declares."""
    left = ", ".join(sorted(getattr(factory, "__abstractmethods__", ())))
    if left:
        raise ValueError(f"{what}: the class {factory.__name__} does not define {left}: write it")
    if not is_dataclass(factory) or "__init__" in vars(factory):  # the decorator writes one, or it has its own
        return
    no_parameter = re.compile("ClassVar|Final")
    known = {parameter.name for parameter in fields(factory)}
    own = {name for name, kind in inspect.get_annotations(factory).items() if not no_parameter.search(str(kind))}
    if any(not name.startswith("_") for name in own - known):
        raise ValueError(f"{what}: write @dataclass(frozen=True) above the class {factory.__name__}")


def imported(what: str, path: str) -> Any:
    """What is at a dotted path. Raises `ValueError` if there is nothing."""
    module, _, name = path.rpartition(".")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # the user's own code is in the working directory
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: nothing before the dot
        raise ValueError(f"{what} {path!r} cannot be imported: {error}") from error


def imported_callable(what: str, path: str) -> Callable:
    """[`imported`], or `ValueError` for something else than a class or a function."""
    found = imported(what, path)
    if not callable(found):
        raise ValueError(f"{what} {path!r} must be a class or a function, got {found!r}")
    return found


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise `ValueError` unless `value` is a finite number in `[low, high]`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        at_least = "" if math.isinf(low) else f" >= {low:g}"
        at_most = "" if math.isinf(high) else f" <= {high:g}"
        both = " and" if at_least and at_most else ""
        raise ValueError(f"{name} must be a number{at_least}{both}{at_most}, got {value!r}")


def check_whole_number(name: str, value: Any, low: int = 1) -> None:
    """Raise `ValueError` unless `value` is a whole number >= `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ValueError(f"{name} must be a whole number >= {low}, got {value!r}")


def check_is_number(flags: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a flag that is NaN: it is neither too small nor too large, so that checks let it pass."""
    for name, value in flags.items():
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, float) and math.isnan(part) for part in parts):
            raise ValueError(f"{name} must be a number, got nan")


def minutes(text: str) -> float:
    """A flag that is a time, for `argparse`; raises its error unless it is a finite number >= 0."""
    try:
        check_number("it", float(text), low=0.0)
    except ValueError:
        raise ArgumentTypeError(f"must be a number >= 0, got {text!r}") from None
    return float(text)


def check_saved(source: str, state: Any, form: Any, name: str = "it") -> None:
    """
    Raise `ValueError` unless a saved state has the expected form.

    Args:
        source (`str`):
            Where it was saved; for the message.
        state:
            The parsed JSON.
        form:
            A type, where `float` is any number; `[form]`, a list of any length; `{str: form}`, a mapping with any
            keys; or a mapping of the required keys, each with its form.
        name (`str`, *optional*):
            What the state is; for the message.
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


def lab(module: str, what: str) -> ModuleType:
    """
    Import a module of `trl_entropy.lab`, which needs the packages of the extra `[lab]`.

    Raises `ValueError` if a package is not installed; `what` names in the message what needs it.
    """
    try:
        return importlib.import_module(f"trl_entropy.lab.{module}")
    except ModuleNotFoundError as error:
        package = (error.name or "trl_entropy").split(".")[0]
        if package == "trl_entropy":
            raise
        raise ValueError(f"{what} needs {package}: pip install 'trl-entropy[lab]'") from error
