"""How ETPO reads a batch of `GRPOTrainer`, and its additional knob."""

from dataclasses import replace
from math import inf

from ..control.knobs import Knob
from ..families import GRPO


BETA = Knob("beta", low=0.0, high=inf, raises_entropy=True, default=0.01)
NO_BONUS = "its KL penalty keeps the entropy up: turn beta"
RATIOS = "its loss has no ratios of log-probs"
ETPO = replace(
    GRPO,
    name="EtpoTrainer",
    config="EtpoConfig",
    homes=("trl_entropy.etpo",),
    lacks={
        "entropy_coef": NO_BONUS,
        "epsilon_low": RATIOS,
        "epsilon_high": RATIOS,
        "acts.completions": "a stored solution has no steps in the environment",
        "acts.temperatures": "an episode has several actions, each sampled in its own batch",
    },
    idle=dict.fromkeys(("entropy_coef", "use_adaptive_entropy"), NO_BONUS),
    knobs=(BETA,),
)
