"""How ETPO reads a batch of `GRPOTrainer`, and the knob that it has besides."""

from dataclasses import replace
from math import inf

from ..control.knobs import Knob
from ..families import GRPO


BETA = Knob("beta", low=0.0, high=inf, raises_entropy=True, default=0.01)
RATIOS = "its loss has no ratios of log-probs"
ETPO = replace(
    GRPO,
    trainer="trl_entropy.etpo.EtpoTrainer",
    config="trl_entropy.etpo.EtpoConfig",
    lacks={
        "entropy_coef": "its KL penalty keeps the entropy up: turn beta",
        "epsilon_low": RATIOS,
        "epsilon_high": RATIOS,
        "acts.completions": "a stored solution has no steps in the environment",
        "acts.temperatures": "an episode has several actions, each sampled from a batch of its own",
    },
    knobs=(BETA,),
)
