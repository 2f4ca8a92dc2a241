"""Loss terms per token: the loss is `L_TRL(A') + sum_k mean(t_k)` over the trained tokens of the optimizer step."""

from .confident_surrogate import ConfidentSurrogate


TERMS = {"confident_surrogate": ConfidentSurrogate}
