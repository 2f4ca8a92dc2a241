"""Rules on what is sampled for training: problems, temperatures and groups. One method per file."""

from .curriculum import Curriculum
from .dynamic_sampling import DynamicSampling
from .offline_injection import OfflineInjection
from .perplexity_window import PerplexityWindow
from .plan import RolloutPlan
from .prompt_temperature import PromptTemperature
from .rule import RolloutRule


ROLLOUT_RULES = {
    "curriculum": Curriculum,
    "dynamic_sampling": DynamicSampling,
    "offline_injection": OfflineInjection,
    "perplexity_window": PerplexityWindow,
    "prompt_temperature": PromptTemperature,
}

__all__ = [
    "ROLLOUT_RULES",
    "Curriculum",
    "DynamicSampling",
    "OfflineInjection",
    "PerplexityWindow",
    "PromptTemperature",
    "RolloutPlan",
    "RolloutRule",
]
