"""
One rank of the runs that the tests of several processes start: BACKEND MODEL FOLDER, results as JSON in the folder.

BACKEND is `ddp`, `fsdp2`, `zero2` or `zero3`.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import LoraConfig
from ranks import launched
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from toy import EntropyGiven, build_trainer, halves, logged, sums_with_columns
from transformers import TrainerCallback
from trl.distributed import DistributedBackend

from trl_entropy import EntropyGRPOTrainer
from trl_entropy._seam import whole


ROLLOUT = ("perplexity", "temperature", "injected", "groups_sampled", "groups_filled", "stage")
GROUPS = ("all_correct", "all_wrong", "distinct_answers", "vote_entropy")
START = {"start_steps": 1}
COMMON = {
    "max_steps": 4,
    "loss_type": "dapo",
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "learning_rate": 0.3,
    "save_strategy": "steps",
    "save_steps": 4,
    "entropy_measures": "full",
    "temperature": 0.8,  # another than the one that "full" measures at as well
    "entropy_control": "confident_sign",
    "loss_terms": {"confident_surrogate": {"threshold": 0.2}},
    "controllers": {
        "confident_sign": {"kp": 2.0, "ki": 0.5, "target_ratio": 0.98, **START},
        "surrogate": {"law": "pi", "knob": "loss_terms.confident_surrogate.alpha", "target_ratio": 0.95, **START},
        "guided": {
            "law": "bang_bang",
            "knob": "positive_advantage_coef",
            **{"step": 0.1, "initial": 0.5, "high": 1.0, "target_ratio": 0.9, **START},
        },
    },
}
RUNS = {
    "accumulated": {"gradient_accumulation_steps": 2, "token_weights": {"confident_sign": {"threshold": 0.2}}},
    # with statistics over the optimizer step: two micro-batches on each of two ranks
    "pooled": {
        "gradient_accumulation_steps": 2,
        "token_weights": {"confident_sign": {"threshold": 0.2}, "high_entropy": {"fraction": 0.6}},
    },
    # facts from hidden states, the LM head and the reference model
    "hidden": {
        **{"gradient_accumulation_steps": 2, "beta": 0.1},
        "token_weights": {"confident_sign": {"threshold": 0.2}, "clip_v": {"mu": 1.0, "max_share": 0.1}},
        "loss_terms": {**COMMON["loss_terms"], "kl_cov": {"share": 0.2}, "siren": {"coef": 0.1}},
    },
    # problems, temperatures, completions and groups are decided for both ranks together; every group stands on both
    "planned": {
        **{"reward_funcs": halves, "num_generations": 16},
        "token_weights": {"confident_sign": {"threshold": 0.2}, "perplexity": {"alpha": 0.2, "limit": 0.5}},
        "rollout_rules": {
            "curriculum": {"column": "hard"},
            "perplexity_window": {"share": 0.7},
            "dynamic_sampling": {"max_rounds": 3, "by": "halves"},
            "prompt_temperature": {"step": 0.2},
            "offline_injection": {"column": "stored", "accuracy": 0.6},
        },
    },
}


RUNS["adapter"] = {
    **RUNS["hidden"],
    "peft_config": LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "up_proj"]),
}
SHARDED = ("hidden", "adapter", "planned")
# groups without an advantage, of which the ranks have different numbers; the second update is off-policy
UNEVEN = {
    **{"gradient_accumulation_steps": 2, "reward_funcs": halves, "max_steps": 2, "save_strategy": "no"},
    **{"off_policy_updates": 2, "entropy_measures": "basic"},
    **{"token_weights": {"confident_sign": {"threshold": 0.2}}, "loss_terms": {}},
    "controllers": {name: COMMON["controllers"][name] for name in ("confident_sign", "guided")},
}
RUNS_OF_TWO = {"every_row": UNEVEN, "fast": {**UNEVEN, "fast_step": True}}


class EveryStep(TrainerCallback):
    """Keeps knobs, entropy and errors as this rank has them at the end of every step."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.rows = []

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        errors = {controller.name: controller.error for controller in trainer.controllers}
        measured = {"entropy": trainer.step_entropy(), "measures": trainer.measures.last}
        self.rows.append({"knobs": dict(trainer.knobs), "errors": errors, **measured})


class OnCPU:
    """accelerate ignores FSDP2 and DeepSpeed on CPUs; the trainers it is mixed into tell it that these are GPUs."""

    def __init__(self, *args, **kwargs):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        super().__init__(*args, **kwargs)


class GivenOnCPU(OnCPU, EntropyGiven):
    """The package's trainer on given completions, sharded."""


class GeneratesOnCPU(OnCPU, EntropyGRPOTrainer):
    """The package's trainer, sharded."""


def use(backend: str) -> None:
    """Set what `accelerate launch` sets for a backend."""
    config = {"fsdp2": "fsdp2", "zero2": "deepspeed_zero2", "zero3": "deepspeed_zero3"}[backend]
    _, environment = launched(config, "--mixed_precision", "no", "--main_process_port", "0")
    os.environ |= {**environment, "DS_ACCELERATOR": "cpu"}


def whole_weights(trainer) -> torch.Tensor:
    """All parameters, one after another, gathered from all ranks."""
    trained = list(trainer.model.parameters())
    with DistributedBackend(trainer.accelerator).gather_params(trained):
        whole = [value.full_tensor() if hasattr(value, "full_tensor") else value for value in trained]
        return torch.cat([value.detach().flatten() for value in whole])


def train(model: str, folder: Path, name: str, rows: int, resume=None, **arguments) -> dict:
    settings = {"per_device_train_batch_size": rows, "trainer_class": EntropyGiven, **COMMON}
    settings |= {**RUNS, **RUNS_OF_TWO}[name] | arguments
    torch.manual_seed(0)  # of a new adapter
    trainer = build_trainer(model, sums_with_columns(), folder / name, **settings)
    steps = EveryStep(trainer)
    trainer.add_callback(steps)  # after those of the controllers
    trainer.train(resume_from_checkpoint=resume)
    groups = {name: logged(trainer, f"groups/{name}") for name in GROUPS}
    groups |= {name: logged(trainer, f"rollout/{name}") for name in ROLLOUT}
    groups["samples_per_context"] = logged(trainer, "authority/samples_per_context")
    ranks = trainer.accelerator.num_processes
    return {"ranks": ranks, "steps": steps.rows, "weights": whole_weights(trainer).tolist(), "groups": groups}


def generate(model: str, folder: Path, trainer_class=EntropyGRPOTrainer, **arguments) -> dict:
    """What is logged in two steps on completions that the model has sampled."""
    settings = {"max_steps": 2, "entropy_measures": "full", "temperature": 0.8, **arguments}
    trainer = build_trainer(model, sums_with_columns(), folder / "sampled", trainer_class=trainer_class, **settings)
    trainer.train()
    names = ("loss", "entropy", "grad_norm", "entropy/temperature_1", "completions/mean_length", "reward")
    texts = list(trainer._logs["completion"])
    return {"texts": texts, **{name: logged(trainer, name) for name in names}}


def gradient_through_a_split_layer() -> list[float]:
    """The gradient of a layer that FSDP2 splits and a loss reads whole, times 1 on one rank and 2 on the other."""
    rank = torch.distributed.get_rank()
    layer = fully_shard(torch.nn.Linear(3, 2), mesh=init_device_mesh("cpu", (2,)))
    split = layer.weight
    assert split.to_local().shape == (1, 3)
    ((rank + 1) * whole(split) * torch.arange(6.0).view(2, 3)).sum().backward()
    return split.grad.full_tensor().flatten().tolist()


def fail_on_one_rank(model: str, folder: Path, **arguments) -> str:
    """The error of this rank if the last rank has a number that is not finite in its part of the parameters."""
    trainer = build_trainer(
        model, sums_with_columns(), folder / "failed", trainer_class=GivenOnCPU, max_steps=2, **arguments
    )

    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if trainer.accelerator.process_index == trainer.accelerator.num_processes - 1:
                parameter = next(trainer.model.parameters())
                shard = parameter.to_local() if hasattr(parameter, "to_local") else parameter.ds_tensor
                shard.detach().view(-1)[0] = torch.nan

    trainer.add_callback(Break())
    try:
        trainer.train()
    except FloatingPointError as error:
        return str(error)
    return ""


def main() -> None:
    torch.set_num_threads(1)
    backend, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    given = {"rows": 8, "ddp_backend": "gloo"}
    if backend == "ddp":
        results = {name: train(model, folder, name, **given) for name in (*RUNS, *RUNS_OF_TWO)}
    else:
        results = {"sampled_ddp": generate(model, folder, ddp_backend="gloo")}
        use(backend)
        given["trainer_class"] = GivenOnCPU
        results |= {name: train(model, folder, name, **given) for name in (*SHARDED, *RUNS_OF_TWO)}
        # torch does not load the state of an optimizer that has none, nor TRL the order of a later epoch
        adam = {"optim": "adamw_torch", "learning_rate": 0.01, "save_steps": 1, **given}
        results["whole"] = train(model, folder / "adam", "hidden", **adam)
        checkpoint = str(folder / "adam" / "hidden" / "checkpoint-1")
        results["resumed"] = train(model, folder / "adam", "hidden", resume=checkpoint, **adam)
        if backend == "fsdp2":
            results["gradient"] = gradient_through_a_split_layer()
        results["sampled"] = generate(model, folder, trainer_class=GeneratesOnCPU, ddp_backend="gloo")
        if backend != "zero2":  # whose ranks hold all parameters
            results["failed"] = fail_on_one_rank(model, folder, ddp_backend="gloo")
    (folder / f"rank_{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
