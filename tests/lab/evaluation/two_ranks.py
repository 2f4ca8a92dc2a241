"""One rank of what `test_two_ranks.py` starts: MODEL PROBLEMS FOLDER, with what the callback gives as JSON in it."""

import json
import sys
from pathlib import Path

import torch
from toy import build_trainer, sums

from trl_entropy import PassAtKCallback
from trl_entropy.commands import cli
from trl_entropy.rewards import LastNumberReward


def in_training(model: str, folder: Path, rows: int, **arguments) -> dict:
    """What the callback logs in two steps of TRL's trainer, of `rows` on each rank."""
    trainer = build_trainer(
        model, sums(), folder, plain=True, max_steps=2, per_device_train_batch_size=rows, **arguments
    )
    callback = PassAtKCallback(sums().select(range(5)), every=1, num_samples=3, reward=LastNumberReward())
    callback.attach(trainer)
    before = callback.evaluate()
    trainer.train()
    logged = [row for row in trainer.state.log_history if "eval_pass@3" in row]
    return {"before": {name: value for name, value in before.items() if value == value}, "logged": logged}


def main() -> None:
    torch.set_num_threads(1)
    model, problems, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    flags = ["--model", model, "--dataset", problems, "--output_dir", str(folder / "eval"), "--num_samples", "3"]
    cli.main(["eval", *flags, "--max_new_tokens", "4", "--answer_from", "last_number", "--resamples", "50"])
    found = in_training(model, folder / "run", rows=4, ddp_backend="gloo")
    (folder / f"rank_{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
