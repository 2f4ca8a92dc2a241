"""The plugin in Axolotl's own command line; each run is a process, since Axolotl mixes its classes once in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy import sums


pytest.importorskip("axolotl", reason="make test-axolotl has it")
TESTS = Path(__file__).parents[1]
PLUGIN = "trl_entropy.integrations.axolotl.EntropyPlugin"
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
}


@pytest.fixture
def axolotl(model_dir, tmp_path):
    """Run Axolotl's `train` with a block of ours and other settings: `axolotl(block, **settings)`."""
    sums().to_json(tmp_path / "sums.jsonl")

    def run(block=None, trl=None, **settings):
        config = {
            "base_model": model_dir,
            "rl": "grpo",
            "trl": {
                "reward_funcs": ["toy.even_length"],
                "num_generations": 4,
                "max_completion_length": 8,
                **(trl or {}),
            },
            "datasets": [{"path": str(tmp_path / "sums.jsonl"), "ds_type": "json", "split": "train"}],
            "dataset_prepared_path": str(tmp_path / "prepared"),
            "output_dir": str(tmp_path / "out"),
            "max_steps": 3,
            "save_steps": 3,
            "logging_steps": 1,
            "micro_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.01,
            "lr_scheduler": "constant",
            "optimizer": "adamw_torch",
            "sequence_len": 64,
            "bf16": False,
            "seed": 1,
            **({} if block is None else {"trl_entropy": block}),
            **settings,
        }
        (tmp_path / "axolotl.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "axolotl.cli.train", str(tmp_path / "axolotl.yaml")]
        return subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    def logs(block=None, **settings) -> list[dict]:
        done = run(block, **settings)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        history = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
        return [entry for entry in history if "loss" in entry]

    def refused(block, **settings) -> str:
        done = run(block, **settings)
        assert done.returncode != 0
        return done.stdout + done.stderr

    run.logs, run.refused = logs, refused
    return run


def of(logs: list[dict], *names: str) -> list[tuple]:
    return [tuple(entry[name] for name in names) for entry in logs]


def test_without_flags_the_loss_is_that_of_axolotl(axolotl):
    theirs, ours = axolotl.logs(), axolotl.logs({})
    assert not [key for entry in theirs for key in entry if key.startswith("entropy/")]
    assert [key for key in ours[0] if key.startswith("entropy/")]
    names = ("loss", "grad_norm", "reward", "entropy")
    assert len(theirs) == 3
    assert of(ours, *names) == of(theirs, *names)


def test_method_and_controller_act(axolotl):
    controller = {"law": "pi", "knob": "entropy_coef", "kp": 1.0, "ki": 0.1, "low": 0.0, "high": 1.0}
    block = {
        "entropy_target": 5.0,
        "token_weights": {"clip_cov": {}},
        "controllers": {"hold": controller},
    }
    logs = axolotl.logs(block, plugins=[PLUGIN])
    turned = [value for (value,) in of(logs, "knobs/entropy_coef")]
    assert turned[-1] > turned[0] >= 0.0


@pytest.mark.parametrize(
    ("block", "settings", "why"),
    [
        ({"entropy_contrl": "hold"}, {}, "entropy_contrl"),
        (
            {"entropy_target": 1.0},
            {"trl": {"entropy_target": 0.5}},
            "entropy_target is set in both trl and trl_entropy",
        ),
        ({}, {"rl": "dpo"}, "trl_entropy needs rl: grpo or gdpo"),
        ({}, {"context_parallel_size": 2}, "does not work with context_parallel_size > 1"),
        ({}, {"trl": {"use_data_producer": True}}, "set trl.skip_zero_advantage_batches: false"),
    ],
)
def test_settings_with_which_it_cannot_act_are_refused(axolotl, block, settings, why):
    assert why in axolotl.refused(block, **settings)
