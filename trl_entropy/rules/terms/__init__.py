"""Loss terms per token: the loss is `L_TRL(A') + sum_k mean(t_k)` over the trained tokens of the optimizer step."""

from ..rule import Rule
from .aer_entropy import AerEntropy
from .ce_gppo import CeGPPO
from .confident_surrogate import ConfidentSurrogate
from .kl_cov import KlCov
from .lp_reg import LpReg
from .offline_shaping import OfflineShaping
from .paec import Paec
from .sent import Sent
from .simko import Simko
from .siren import Siren


TERMS: dict[str, type[Rule]] = {
    "aer_entropy": AerEntropy,
    "ce_gppo": CeGPPO,
    "confident_surrogate": ConfidentSurrogate,
    "kl_cov": KlCov,
    "lp_reg": LpReg,
    "offline_shaping": OfflineShaping,
    "paec": Paec,
    "sent": Sent,
    "simko": Simko,
    "siren": Siren,
}
