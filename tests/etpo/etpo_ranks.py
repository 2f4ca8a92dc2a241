"""One rank of the runs of `test_etpo_two_ranks.py`: BACKEND MODEL FOLDER, results as JSON in the folder."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from distributed_run import OnCPU, use, whole_weights
from given_steps import ADAPTER, build_etpo
from peft import LoraConfig
from toy import logged

from trl_entropy._seam import whole
from trl_entropy.etpo import EtpoTrainer


COMMON = {
    **{"max_steps": 3, "gradient_accumulation_steps": 2, "optim": "sgd", "learning_rate": 0.1, "temperature": 0.8},
    **{"save_strategy": "steps", "save_steps": 1, "max_grad_norm": 1.0, "critic_max_grad_norm": 1.0},
    "controllers": {"hold": {"law": "pi", "knob": "beta", "target": 3.2, "kp": 0.1, "ki": 0.1, "high": 1.0}},
}
RUNS = {
    "model": {},
    "head": {"critic": "head"},
    "adapters": {"critic": "adapters", "peft_config": LoraConfig(**ADAPTER)},
}


class ShardedOnCPU(OnCPU, EtpoTrainer):
    """The trainer under FSDP2."""


SPLIT = ("model", "adapters")  # the critics that FSDP splits
LOGGED = (*(f"etpo/{name}" for name in ("q_loss", "q", "value", "kl", "target", "policy_loss")), "knobs/beta")


def train(model: str, folder: Path, name: str, rows: int, resume: str | None = None, **settings) -> dict:
    torch.manual_seed(0)  # of a new adapter
    settings = {"per_device_train_batch_size": rows, **COMMON, **RUNS[name], **settings}
    trainer = build_etpo(model, folder / name, **settings)
    trainer.train(resume_from_checkpoint=resume)
    parts = (trainer.critic.trained, trainer.critic.slow)
    critic, slow = (torch.cat([whole(one.detach()).flatten() for one in part]) for part in parts)
    weights = {"policy": whole_weights(trainer), "critic": critic, "slow": slow}
    return {
        "ranks": trainer.accelerator.num_processes,
        **{name: logged(trainer, name) for name in LOGGED},
        **{name: values.tolist() for name, values in weights.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    backend, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    given = {"rows": 4, "ddp_backend": "gloo"}
    if backend != "ddp":
        use(backend)
        given["trainer_class"] = ShardedOnCPU
    results = {name: train(model, folder, name, **given) for name in RUNS}
    # torch does not load the state of an optimizer that has none
    adam = {"optim": "adamw_torch", "learning_rate": 0.01, **given}
    for name in SPLIT:
        results[f"whole_{name}"] = train(model, folder / "adam", name, **adam)
        checkpoint = str(folder / "adam" / name / "checkpoint-2")
        results[f"resumed_{name}"] = train(model, folder / "adam", name, resume=checkpoint, **adam)
    if backend != "ddp":
        os.environ["FSDP_RESHARD_AFTER_FORWARD"] = "false"
        AcceleratorState._reset_state()
        for name in SPLIT:
            results[f"kept_{name}"] = train(model, folder / "kept", name, **given)
    (folder / f"rank_{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
