"""Loss weights per token, `w >= 0`: the effective advantage is `A' = (prod_i w_i) * A`."""

from ..rule import Rule
from .a3po import A3PO
from .asym_grpo import AsymGRPO
from .bapo import BAPO
from .clip_b import ClipB
from .clip_cov import ClipCov
from .clip_v import ClipV
from .confident_sign import ConfidentSign
from .dppo_kl import DPPOKl
from .dppo_tv import DPPOTv
from .entropy_ratio import EntropyRatio
from .high_entropy import HighEntropy
from .opefo import Opefo
from .perplexity import Perplexity
from .random_positive_clip import RandomPositiveClip
from .ratio_range import RatioRange
from .relative_entropy import RelativeEntropy
from .sampled_only import SampledOnly
from .sign import Sign
from .steer import Steer


WEIGHTS: dict[str, type[Rule]] = {
    "a3po": A3PO,
    "asym_grpo": AsymGRPO,
    "bapo": BAPO,
    "clip_b": ClipB,
    "clip_cov": ClipCov,
    "clip_v": ClipV,
    "confident_sign": ConfidentSign,
    "dppo_kl": DPPOKl,
    "dppo_tv": DPPOTv,
    "entropy_ratio": EntropyRatio,
    "high_entropy": HighEntropy,
    "opefo": Opefo,
    "perplexity": Perplexity,
    "random_positive_clip": RandomPositiveClip,
    "ratio_range": RatioRange,
    "relative_entropy": RelativeEntropy,
    "sampled_only": SampledOnly,
    "sign": Sign,
    "steer": Steer,
}
