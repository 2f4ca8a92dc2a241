"""Loss weights per token, `w >= 0`: the effective advantage is `A' = (prod_i w_i) * A`."""

from .confident_sign import ConfidentSign
from .high_entropy import HighEntropy
from .sign import Sign


WEIGHTS = {"confident_sign": ConfidentSign, "high_entropy": HighEntropy, "sign": Sign}
