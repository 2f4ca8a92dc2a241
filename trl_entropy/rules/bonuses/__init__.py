"""Bonuses per token that are added to the advantage: `A' = (prod_i w_i) * A + sum_j b_j`."""

from ..rule import Rule
from .differential_smoothing import DifferentialSmoothing
from .entropy_advantage import EntropyAdvantage
from .future_entropy import FutureEntropy
from .max_rl import MaxRL
from .pass_k import PassK
from .position import Position
from .pseudo_negative import PseudoNegative
from .quantile_advantage import QuantileAdvantage
from .repo import Repo
from .repo_r import RepoR
from .w_reinforce import WReinforce


BONUSES: dict[str, type[Rule]] = {
    "differential_smoothing": DifferentialSmoothing,
    "entropy_advantage": EntropyAdvantage,
    "future_entropy": FutureEntropy,
    "max_rl": MaxRL,
    "pass_k": PassK,
    "position": Position,
    "pseudo_negative": PseudoNegative,
    "quantile_advantage": QuantileAdvantage,
    "repo": Repo,
    "repo_r": RepoR,
    "w_reinforce": WReinforce,
}
