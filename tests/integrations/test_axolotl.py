"""The plugin in Axolotl's own command line; each run is a process, since Axolotl mixes its classes once in one."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from toy import sums


pytest.importorskip("axolotl", reason="make test-axolotl has it")
TESTS = Path(__file__).parents[1]
PLUGIN = "trl_entropy.integrations.axolotl.EntropyPlugin"
ASYNC = {"skip_zero_advantage_batches": False}
PRODUCER = {**ASYNC, "use_data_producer": True}
PREFETCH = {**ASYNC, "async_prefetch": True}
FLAT = {"batch_flattening": True, "attn_implementation": "flash_attention_2"}
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj"]}
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
}


@pytest.fixture
def axolotl(model_dir, tmp_path):
    """Axolotl's `train` with a block of ours and other settings: `axolotl.logs(block, **settings)`."""
    sums().to_json(tmp_path / "sums.jsonl")

    def written(block=None, trl=None, **settings) -> str:
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
            # Axolotl would import all again in processes that prepare the dataset
            "skip_prepare_dataset": True,
            "dataset_num_proc": 0,
            **({} if block is None else {"trl_entropy": block}),
            **settings,
        }
        (tmp_path / "axolotl.yaml").write_text(yaml.safe_dump(config))
        return str(tmp_path / "axolotl.yaml")

    def logs(block=None, **settings) -> list[dict]:
        command = [sys.executable, "-m", "axolotl.cli.train", written(block, **settings)]
        done = subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        history = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
        return [entry for entry in history if "loss" in entry]

    return SimpleNamespace(written=written, logs=logs)


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
    logs = axolotl.logs(block, plugins=[PLUGIN], skip_prepare_dataset=False)
    turned = [value for (value,) in of(logs, "knobs/entropy_coef")]
    assert turned[-1] > turned[0] >= 0.0


@pytest.mark.parametrize(
    "settings", [{"rl": "gdpo"}, {"trl": {"multi_objective_aggregation": "normalize_then_sum"}, **LORA}]
)
def test_gdpo_and_lora(axolotl, settings):
    logs = axolotl.logs({"entropy_control": "hold", "token_weights": {"clip_cov": {}}}, **settings)
    assert all(norm > 0 and entropy > 0 for norm, entropy in of(logs, "grad_norm", "entropy/correct"))
    assert [value for (value,) in of(logs, "rewards/even_length/mean")] == [value for (value,) in of(logs, "reward")]


@pytest.mark.parametrize(("trl", "updates"), [(PRODUCER, [0, 1, 0]), (PREFETCH, [0, 1, 2])])
def test_asynchronous_trainer(axolotl, trl, updates):
    """Two optimizer steps, each of two micro-batches, for each rollout."""
    block = {
        "off_policy_updates": 2,
        "entropy_measures": "full",
        "token_weights": {"toy.OfItsStep": {}, "asym_grpo": {}},
        "trim_padding": True,
    }
    logs = axolotl.logs(block, trl=trl, gradient_accumulation_steps=2)
    assert [value for (value,) in of(logs, "staleness/updates")] == updates
    assert all(norm > 0 and entropy > 0 for norm, entropy in of(logs, "grad_norm", "entropy/correct"))
    assert ["groups/all_correct" in entry for entry in logs] == [True, False, True]


@pytest.mark.filterwarnings("ignore:The `vllm_importance_sampling_cap`:FutureWarning")  # Axolotl sets it
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"entropy_coef": 0.01}, "no entropy bonus"),
        ({"entropy_control": "hold"}, "hold cannot turn entropy_coef"),
        ({"loss_terms": {"aer_entropy": {}}}, "takes entropies without their gradient"),
        ({"rollout_rules": {"dynamic_sampling": {}}}, "it may sample while it trains"),
        ({"controllers": {"heat": {"law": "constant", "knob": "temperature"}}}, "heat cannot turn temperature"),
    ],
)
def test_flags_that_the_asynchronous_trainer_has_no_place_for_are_refused(flags, why):
    from axolotl.core.trainers.grpo.args import AxolotlAsyncGRPOConfig

    from trl_entropy.integrations.axolotl.args import AxolotlFlags

    mixed = issubclass(AxolotlAsyncGRPOConfig, AxolotlFlags)  # by Axolotl, if another test has loaded a config
    bases = (AxolotlAsyncGRPOConfig,) if mixed else (AxolotlFlags, AxolotlAsyncGRPOConfig)
    config = dataclass(type(AxolotlAsyncGRPOConfig.__name__, bases, {}))
    with pytest.raises(ValueError, match=why):
        config(output_dir="unused", use_cpu=True, bf16=False, **flags)


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
        ({}, {"trl": PREFETCH, **FLAT}, "does not work with batch_flattening"),
        ({}, {"trl": {**PREFETCH, "streaming_partial_batch": True}}, "scored in parts"),
        ({}, {"trl": {**PREFETCH, "reward_num_workers": 2}}, "Set it to 1"),
        ({}, {"trl": {**PRODUCER, "replay_buffer_size": 8}}, "Set it to 0"),
    ],
)
def test_settings_with_which_it_cannot_act_are_refused(axolotl, monkeypatch, block, settings, why):
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    from axolotl.cli.config import load_cfg

    with pytest.raises(ValueError, match=re.escape(why)):
        load_cfg(axolotl.written(block, **settings))
