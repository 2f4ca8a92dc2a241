"""One rank of the run that `test_async_grpo.py` starts twice: MODEL FOLDER, what it found as JSON in the folder."""

import json
import sys
from pathlib import Path

import pytest
import torch
from asynchronous import build_async, on_the_cpu
from toy import logged, parameters


SETTINGS = {
    "gradient_accumulation_steps": 2,
    "optim": "sgd",
    "learning_rate": 0.3,
    "max_grad_norm": 0.0,
    "entropy_measures": "full",
    "token_weights": {"async_run.by_age": {}, "high_entropy": {"fraction": 0.6}},
    "loss_terms": {"confident_surrogate": {"threshold": 0.0}},
    "controllers": {
        "term": {"law": "pi", "knob": "loss_terms.confident_surrogate.alpha", "target_ratio": 0.9, "start_steps": 1}
    },
}
MEASURES = ("entropy/positive_advantage", "entropy/correct", "staleness/updates", "staleness/log_ratio")


def by_age(tokens) -> torch.Tensor:
    return 1 / (1 + tokens.staleness)


def train(model: str, folder: Path, rows: int, **arguments) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        on_the_cpu(patch)
        trainer = build_async(model, folder, per_device_train_batch_size=rows, **SETTINGS, **arguments)
        trainer.train()
    weights = torch.cat([value.flatten() for value in parameters(trainer).values()])
    knobs = {name: logged(trainer, name) for name in ("knobs/loss_terms.confident_surrogate.alpha", *MEASURES)}
    return {"weights": weights.tolist(), **knobs}


def main() -> None:
    torch.set_num_threads(1)
    model, folder = sys.argv[1], Path(sys.argv[2])
    results = train(model, folder, rows=4, ddp_backend="gloo")
    (folder / f"rank_{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
