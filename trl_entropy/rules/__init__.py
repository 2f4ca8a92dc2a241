"""Pure functions of tokens, and the algebra that combines their values."""

from .pool import Pool
from .rule import Rule, knob
from .tokens import Tokens


__all__ = ["Pool", "Rule", "Tokens", "knob"]
