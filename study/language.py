"""The core of the study on a language model: SmolLM2-135M-Instruct on sums of two one-digit numbers."""

from .arms import FIRST_SEEDS, RANGES, SEEDS, Arm


MORE_SEEDS = SEEDS[len(FIRST_SEEDS) :]  # of the arms that the main claims are about
MAIN = ("grpo", "positive_only", "negative_only")

# recipes/smollm2_sums_grpo.yaml with four updates of 8 for each rollout batch of 4 problems x 8 completions;
# a short system prompt and short answers, because CPU cores are slow
BASE = {
    "config": "recipes/smollm2_sums_grpo.yaml",
    "dataset_name": "{folder}/smollm2_train.jsonl",
    "eval_dataset_name": "{folder}/smollm2_test.jsonl",
    "chat": "false",  # the prompts are conversations already
    "answer_from": ["last_number"],
    "max_completion_length": 16,
    "per_device_train_batch_size": 8,
    "off_policy_updates": 4,
    "max_steps": 64,
    "pass_at_k_every": 64,
}
# On a GPU: four updates for each rollout batch of 16 problems x 16 completions, and evaluations along the way
GPU = {
    **BASE,
    "use_cpu": "false",
    "bf16": "true",
    "num_generations": 16,
    "per_device_train_batch_size": 64,
    "max_steps": 200,
    "pass_at_k_every": 40,
}
RATE = 1e-5  # the recipe's
TARGET = 1.0  # nats, half of the start
FAST = {"fast_step": "true"}  # the same gradient; it does not go with an entropy bonus


def one_update(base: dict) -> dict:
    """The same rollout batches, each taken in one update."""
    updates = base["off_policy_updates"]
    return {
        "per_device_train_batch_size": base["per_device_train_batch_size"] * updates,
        "off_policy_updates": 1,
        "max_steps": base["max_steps"] // updates,
        "pass_at_k_every": base["pass_at_k_every"] // updates,
    }


def method(name: str, **flags) -> dict:
    """A bundled method that holds the target."""
    return {"entropy_control": name, "entropy_target": TARGET, **flags}


def _arms(name: str, base: dict, window: int) -> dict[str, Arm]:
    found = {
        "grpo": FAST,
        "positive_only": {**FAST, "negative_advantage_coef": 0.0},
        "negative_only": {**FAST, "positive_advantage_coef": 0.0},
        "hold": method("hold"),
        "entropy_guided": method("entropy_guided", **FAST),
        "entropic": method("entropic"),
        "updates_1": {**FAST, **one_update(base)},
        "grpo_half": {**FAST, "learning_rate": RATE / 2},
        "stage": {**FAST, "entropy_control": "stage"},
        "clip_higher": {**FAST, **RANGES["clip_higher"]},
    }
    return {
        f"{name}_{arm}": Arm(flags, window // 4 if arm == "updates_1" else window, base, before=arm == "grpo")
        for arm, flags in found.items()
    }


CPU_ARMS = _arms("smollm2", BASE, 4)
MAIN_ARMS = {name: arm for name, arm in CPU_ARMS.items() if name.removeprefix("smollm2_") in MAIN}
FACTORS = {name: RANGES[name] for name in ("clip_lower", "clip_tighter")} | {
    "problems_16": {"subset_size": 16, "subset_by": "random"}
}
GPU_ARMS = _arms("gpu_smollm2", GPU, 20) | {
    f"gpu_smollm2_{name}": Arm({**FAST, **flags}, 20, GPU, before=False) for name, flags in FACTORS.items()
}
