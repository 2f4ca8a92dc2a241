"""The core of the study on a language model: SmolLM2-135M-Instruct on sums of two one-digit numbers."""

from .arms import RANGES, Arm


SEEDS = (1, 2, 3)

# On CPU cores: recipes/smollm2_sums_grpo.yaml with two updates for each rollout batch of 4 problems x 8 completions
BASE = {
    "config": "recipes/smollm2_sums_grpo.yaml",
    "answer_from": ["last_number"],
    "per_device_train_batch_size": 16,
    "off_policy_updates": 2,
    "max_steps": 40,
    "pass_at_k_every": 40,
}
# On a GPU: four updates for each rollout batch of 16 problems x 16 completions, and evaluations along the way
GPU = {
    **BASE,
    "use_cpu": "false",
    "bf16": "true",
    "num_generations": 16,
    "per_device_train_batch_size": 64,
    "off_policy_updates": 4,
    "max_steps": 200,
    "pass_at_k_every": 40,
}
FAST = {"fast_step": "true"}  # the same gradient; it does not go with an entropy bonus
GUIDED = {"entropy_control": "entropy_guided", "entropy_target": 1.0}


def _arms(name: str, base: dict, one_update: dict) -> dict[str, Arm]:
    found = {
        "grpo": FAST,
        "updates_1": {**FAST, **one_update},
        "positive_only": {**FAST, "negative_advantage_coef": 0.0},
        "negative_only": {**FAST, "positive_advantage_coef": 0.0},
        "entropy_guided": {**FAST, **GUIDED},
    }
    windows = {"updates_1": 5 if base is GPU else 2}
    return {
        f"{name}_{arm}": Arm(flags, windows.get(arm, 10 if base is GPU else 4), base, before=arm == "grpo")
        for arm, flags in found.items()
    }


CPU_ARMS = _arms(
    "smollm2",
    BASE,
    {"per_device_train_batch_size": 32, "off_policy_updates": 1, "max_steps": 20, "pass_at_k_every": 20},
)
FACTORS = {name: RANGES[name] for name in ("clip_higher", "clip_lower", "clip_tighter")} | {
    "problems_16": {"subset_size": 16, "subset_by": "random"}
}
GPU_ARMS = _arms(
    "gpu_smollm2",
    GPU,
    {"per_device_train_batch_size": 256, "off_policy_updates": 1, "max_steps": 50, "pass_at_k_every": 10},
) | {f"gpu_smollm2_{name}": Arm({**FAST, **flags}, 10, GPU, before=False) for name, flags in FACTORS.items()}
