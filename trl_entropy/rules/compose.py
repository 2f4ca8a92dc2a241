"""Build rules from their names, and combine their values."""

import inspect
from collections.abc import Callable, Mapping
from typing import get_args

import torch
from torch import Tensor

from ..checks import bind, imported, unknown
from .rule import Need, PlainFunction, Rule
from .tokens import Tokens


def build(section: str, catalogue: Mapping[str, type], spec: Mapping[str, Mapping], base: type = Rule) -> dict:
    """
    Build rules from a mapping of names to parameters.

    Args:
        section (`str`):
            `token_weights`, `advantage_bonuses`, `loss_terms` or `rollout_rules`; for error messages.
        catalogue (`Mapping[str, type]`):
            The bundled rules by name.
        spec (`Mapping[str, Mapping]`):
            `{"confident_sign": {"alpha": -0.5}}`, or the dotted path of a rule class or plain function of your own.
        base (`type`, *optional*, defaults to [`~rule.Rule`]):
            The base class of the section; only a rule on tokens may be a plain function.

    Raises `ValueError` for an unknown name or parameter, or a value out of range.
    """
    if not isinstance(spec, Mapping):
        raise ValueError(f"{section} must be a mapping of names to parameters, got {spec!r}")
    rules = {}
    for name, parameters in spec.items():
        what = f"{section}.{name}"
        if name in catalogue:
            factory = catalogue[name]
        elif "." in name:
            factory = imported(section, name)
        else:
            error = unknown(f"name in {section}", name, catalogue)
            raise ValueError(f"{error}. A rule of your own has a dotted path, such as my_rules.{name}")
        if inspect.isclass(factory) and issubclass(factory, base):
            rules[name] = bind(what, factory, parameters or {})
        elif base is Rule and callable(factory) and not inspect.isclass(factory) and not parameters:
            rules[name] = PlainFunction(factory)
        else:
            or_function = ", or a function of tokens without parameters" if base is Rule else ""
            raise ValueError(f"{what} must be a subclass of trl_entropy.{base.__name__}{or_function}")
    return rules


def active(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules that change the loss."""
    return {name: rule for name, rule in rules.items() if not rule.neutral}


def evaluate(section: str, rules: Mapping[str, Callable[[Tokens], Tensor]], tokens: Tokens) -> dict[str, Tensor]:
    """Each rule's `(B, T)` values for the same raw tokens. Raises `ValueError` for another shape."""
    values = {name: _value(f"{section}.{name}", rule, tokens) for name, rule in rules.items()}
    for name, value in values.items():
        if value.shape != tokens.mask.shape:
            raise ValueError(
                f"{section}.{name} must return a value per token, {tuple(tokens.mask.shape)}, got {tuple(value.shape)}"
            )
    return values


def _value(what: str, rule: Callable[[Tokens], Tensor], tokens: Tokens) -> Tensor:
    try:
        return rule(tokens)
    except (AttributeError, TypeError) as error:
        absent = [need for need in get_args(Need) if vars(tokens).get(need, ()) is None]
        raise type(error)(
            f"{error} (in {what}; None unless `needs` of the rule names them: {', '.join(absent)})"
        ) from error


def combined(tokens: Tokens, weights: Mapping[str, Tensor], bonuses: Mapping[str, Tensor]) -> Tensor:
    r"""\\( A'_t = (\prod_i w_{i,t}) \, \hat A_t + \sum_j b_{j,t} \\), `(B, T)`; `0` outside the mask."""
    advantages = tokens.advantages
    for weight in weights.values():
        advantages = tokens.trained(weight.detach() * advantages)
    for bonus in bonuses.values():
        advantages = tokens.trained(advantages + bonus.detach())
    return advantages


def term_sums(tokens: Tokens, rules: Mapping[str, Rule], terms: Mapping[str, Tensor]) -> dict[bool, Tensor]:
    r"""\\( \sum_k t_{k,t} \\), `(B, T)`, 0 outside the mask, by whether the terms follow `loss_type`."""
    sums: dict[bool, Tensor] = {}
    for name, term in terms.items():
        follows, term = rules[name].follows_loss_type, tokens.trained(term)
        sums[follows] = sums[follows] + term if follows in sums else term
    return sums


def faults(tokens: Tokens, weights: Mapping[str, Tensor], bonuses: Mapping[str, Tensor]) -> Tensor:
    """Number of trained tokens whose weight is negative or not finite, or whose bonus is not finite; no host sync."""
    bad = torch.zeros((), device=tokens.mask.device)
    for weight in weights.values():
        bad = bad + (tokens.mask & ~((weight >= 0) & weight.isfinite())).sum()
    for bonus in bonuses.values():
        bad = bad + (tokens.mask & ~bonus.isfinite()).sum()
    return bad


def needs(*rules: Mapping[str, Rule]) -> set[str]:
    """The facts that these rules read besides those that are always there."""
    return {need for table in rules for rule in table.values() for need in rule.needs}
