"""The small reasoner's arms: the signs by the noise in the reward, and settings that were tried as a testbed."""

from .arms import Arm


# Four updates for each rollout batch of 16 problems x 8 completions; the same 16 problems, at a rate where each sign
# alone still learns from the true reward
BASE = {
    "config": "recipes/grpo.yaml",
    "model_name_or_path": "{folder}/reasoner",
    "dataset_name": "{folder}/reasoner_known.jsonl",
    "eval_dataset_name": "{folder}/reasoner_held_out.jsonl",
    "max_completion_length": 64,
    "num_generations": 8,
    "per_device_train_batch_size": 32,
    "off_policy_updates": 4,
    "max_steps": 240,
    "learning_rate": 1.5e-4,
    "subset_size": 16,
    "subset_by": "random",
    "fast_step": "true",
}
SIGNS = {
    "both": {},
    "positive_only": {"negative_advantage_coef": 0.0},
    "negative_only": {"positive_advantage_coef": 0.0},
}
NOISE = (0, 25, 50, 75, 100)  # percent of the rewards that are a coin
AUTHORITY = {
    f"noise_{percent}_{sign}": Arm({"reward_funcs": [f"study.rewards.noise_{percent}"], **flags}, 12, BASE)
    for percent in NOISE
    for sign, flags in SIGNS.items()
}
