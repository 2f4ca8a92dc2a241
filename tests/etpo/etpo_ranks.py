"""One rank of the runs of `test_etpo_two_ranks.py`: MODEL FOLDER, results as JSON in the folder."""

import json
import sys
from pathlib import Path

import torch
from given_steps import ADAPTER, build_etpo
from peft import LoraConfig
from toy import flat, logged, parameters


COMMON = {
    **{"max_steps": 3, "gradient_accumulation_steps": 2, "optim": "sgd", "learning_rate": 0.1, "temperature": 0.8},
    **{"save_strategy": "steps", "save_steps": 2, "max_grad_norm": 1.0, "critic_max_grad_norm": 1.0},
    "controllers": {"hold": {"law": "pi", "knob": "beta", "target": 3.2, "kp": 0.1, "ki": 0.1, "high": 1.0}},
}
RUNS = {
    "model": {},
    "head": {"critic": "head"},
    "adapters": {"critic": "adapters", "peft_config": LoraConfig(**ADAPTER)},
}
LOGGED = (*(f"etpo/{name}" for name in ("q_loss", "q", "value", "kl", "target", "policy_loss")), "knobs/beta")


def train(model: str, folder: Path, name: str, rows: int, resume: str | None = None, **settings) -> dict:
    torch.manual_seed(0)  # of a new adapter
    settings = {"per_device_train_batch_size": rows, **COMMON, **RUNS[name], **settings}
    trainer = build_etpo(model, folder / name, **settings)
    trainer.train(resume_from_checkpoint=resume)
    parts = (trainer.critic.trained, trainer.critic.slow)
    critic, slow = (torch.cat([one.detach().flatten() for one in part]) for part in parts)
    weights = {"policy": flat(parameters(trainer)), "critic": critic, "slow": slow}
    return {
        "ranks": trainer.accelerator.num_processes,
        **{name: logged(trainer, name) for name in LOGGED},
        **{name: values.tolist() for name, values in weights.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    model, folder = sys.argv[1], Path(sys.argv[2])
    given = {"rows": 4, "ddp_backend": "gloo"}
    results = {name: train(model, folder, name, **given) for name in RUNS}
    checkpoint = str(folder / "model" / "checkpoint-2")
    results["resumed"] = train(model, folder, "model", resume=checkpoint, **given)
    (folder / f"rank_{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
