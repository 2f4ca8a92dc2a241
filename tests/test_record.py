"""The record of a run: `metrics.jsonl`."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers
import trl
from processes import run_script
from toy import EntropyGiven, logged
from transformers import TrainerCallback

import trl_entropy
from trl_entropy import Recorder
from trl_entropy.callbacks.recorder import FILE, as_json
from trl_entropy.lab.report.runs import read_run


both = pytest.mark.parametrize("plain", [False, True], ids=["package", "plain"])


def lines(folder: Path) -> list[dict]:
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def record(plain: bool) -> dict:
    """What makes a trainer record."""
    return {"plain": plain, "callbacks": [Recorder()] if plain else None}


class Log(TrainerCallback):
    """Keeps what the trackers of `report_to` would be handed."""

    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append({"step": state.global_step, **logs})


class Break(Exception):
    pass


class BreakAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Break


# What it holds


@both
def test_every_log_is_a_line(build, tmp_path, plain):
    log = Log()
    build(plain=plain, callbacks=[log, Recorder()]).train()
    head, *rows = lines(tmp_path)
    assert list(head) == ["run"]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    times = [head["run"]["started"], *(row.pop("time") for row in rows)]
    assert times == sorted(times)
    assert times[-1] - times[0] < 3600  # seconds
    # the file has what the callbacks see, and of a trainer of ours what is only measured
    assert [{name: row[name] for name in seen} for row, seen in zip(rows, log.rows, strict=True)] == log.rows
    assert ("entropy/decile_1" in rows[0]) is not plain
    assert {"entropy", "reward", "loss", "learning_rate"} <= rows[0].keys()
    assert plain or {"entropy/positive_advantage", "knobs/epsilon_low"} <= rows[0].keys()
    assert "train_runtime" in rows[3]


@both
def test_head_names_settings_and_versions(run, tmp_path, plain):
    run(**record(plain), learning_rate=0.0123)
    head = lines(tmp_path)[0]["run"]
    assert head["step"] == 0
    assert head["settings"]["learning_rate"] == 0.0123
    assert head["settings"]["output_dir"] == str(tmp_path)
    versions = {module.__name__: module.__version__ for module in (trl_entropy, trl, transformers, torch)}
    assert head["versions"] == versions


def test_evaluation_is_recorded(run, tmp_path, dataset):
    run(eval_strategy="steps", eval_steps=2, eval_dataset=dataset.select(range(2)), max_steps=2)
    rows = lines(tmp_path)[1:]
    assert [row["step"] for row in rows if "eval_reward" in row] == [2]


def test_what_is_not_finite_is_kept(build, tmp_path):
    trainer = build()
    trainer.train()
    trainer.log({"a": math.nan, "b": -math.inf})
    row = lines(tmp_path)[-1]
    assert math.isnan(row["a"])
    assert row["b"] == -math.inf


def test_what_is_no_json_is_left_out():
    given = {
        "number": 1,
        "text": "x",
        "none": None,
        "tensor": torch.tensor(0.5),
        "many": torch.zeros(2),
        "object": object(),
        "nested": {"list": (1, object(), 2.5), 3: True},
    }
    assert as_json(given) == {
        "number": 1,
        "text": "x",
        "none": None,
        "tensor": 0.5,
        "nested": {"list": [1, 2.5], "3": True},
    }


def test_no_token_is_written(run, tmp_path):
    secret = "hf_abcdefghijk"
    run(
        hub_token=secret,
        model_init_kwargs={"token": secret, "dtype": torch.float32},
        generation_kwargs={"max_new_tokens": 6},
    )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert secret not in text
    settings = json.loads(text.splitlines()[0])["run"]["settings"]
    assert settings["hub_token"] == "<HUB_TOKEN>"
    assert settings["model_init_kwargs"]["token"] == "<TOKEN>"
    assert settings["generation_kwargs"] == {"max_new_tokens": 6}


@pytest.mark.parametrize("name", ["token", "hub_token", "HF_TOKEN", "api_key", "wandb_api_key", "password", "secret"])
def test_secret_of_a_mapping_is_hidden(name):
    assert as_json({"a": {name: "x"}}) == {"a": {name: f"<{name.upper()}>"}}
    assert as_json({name: None}) == {name: None}


def test_config_is_left_as_it_was(run):
    trainer = run(model_init_kwargs={"dtype": torch.float32})
    assert trainer.args.model_init_kwargs["dtype"] is torch.float32


# When it is written


def test_line_can_be_read_as_soon_as_it_is_logged(run, tmp_path):
    seen = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(len(lines(tmp_path)))

    run(callbacks=[Look()])
    assert seen == [1, 2, 3]  # the head, and one more for each step


@both
def test_crash_leaves_whole_lines(build, tmp_path, plain):
    trainer = build(**record(plain))
    trainer.add_callback(BreakAt(3))
    with pytest.raises(Break):
        trainer.train()
    assert [row["step"] for row in lines(tmp_path)[1:]] == [1, 2]


KILLED = """
import os, signal, sys
from toy import build_trainer, sums
from transformers import TrainerCallback

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

build_trainer(sys.argv[1], sums(), sys.argv[2], callbacks=[Kill()]).train()
"""


def test_killed_process_leaves_whole_lines(model_dir, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = run_script(script, model_dir, tmp_path)
    assert done.returncode == -9, done.stderr[-3000:]
    assert [row["step"] for row in lines(tmp_path)[1:]] == [1, 2]


def test_evaluation_before_training_is_not_recorded(build, tmp_path, dataset):
    build(eval_strategy="steps", eval_dataset=dataset.select(range(2))).evaluate()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_other_processes_write_nothing(build, tmp_path):
    class Elsewhere(Recorder):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_world_process_zero = False
            super().on_train_begin(args, state, control, **kwargs)
            state.is_world_process_zero = True

    build(callbacks=[Elsewhere()]).train()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_recorder_that_is_given_is_the_only_one(run, tmp_path):
    recorder = Recorder()
    trainer = run(callbacks=[recorder])
    assert [one for one in trainer.callback_handler.callbacks if isinstance(one, Recorder)] == [recorder]
    assert [row["step"] for row in lines(tmp_path)[1:]] == [1, 2, 3, 3]
    trainer = run(callbacks=[Recorder])  # transformers takes classes too
    assert sum(isinstance(one, Recorder) for one in trainer.callback_handler.callbacks) == 1


def test_file_that_cannot_be_written_ends_the_run(build, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        build().train()


# New and resumed runs


STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


@both
def test_resumed_run_appends(run, tmp_path, plain):
    run(**record(plain), **{**STEPS, "max_steps": 3})
    run(**record(plain), **STEPS, resume=str(tmp_path / "checkpoint-2"))
    rows = lines(tmp_path)
    assert [row["step"] if "step" in row else row["run"]["step"] for row in rows] == [0, 1, 2, 3, 3, 2, 3, 4, 4]
    # the reader of the report takes the last row of every step
    run_read = read_run(tmp_path)
    assert run_read.series["entropy"].steps == [1, 2, 3, 4]
    assert run_read.series["entropy"].values == [rows[i]["entropy"] for i in (1, 2, 6, 7)]


def test_resumed_run_starts_a_line_of_its_own_after_one_that_was_cut(run, tmp_path):
    run(**{**STEPS, "max_steps": 2})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "ti')
    run(**STEPS, resume=str(tmp_path / "checkpoint-2"))
    texts = path.read_text().splitlines()
    cut = texts.index('{"step": 3, "ti')
    assert json.loads(texts[cut + 1])["run"]["step"] == 2
    assert read_run(tmp_path).series["entropy"].steps == [1, 2, 3, 4]


def test_resumed_run_in_another_folder_has_a_head(run, tmp_path):
    run(output_dir=tmp_path / "first", **{**STEPS, "max_steps": 2})
    run(output_dir=tmp_path / "second", **STEPS, resume=str(tmp_path / "first" / "checkpoint-2"))
    head, *rows = lines(tmp_path / "second")
    assert head["run"]["step"] == 2
    assert [row["step"] for row in rows] == [3, 4, 4]


def test_new_run_starts_the_file_anew(run, tmp_path):
    run(learning_rate=1e-3)
    trainer = run(learning_rate=2e-3, trainer_class=EntropyGiven)
    head, *rows = lines(tmp_path)
    assert head["run"]["settings"]["learning_rate"] == 2e-3
    assert [row["entropy"] for row in rows if "entropy" in row] == logged(trainer, "entropy")


def test_record_of_an_earlier_run_is_kept(run, tmp_path):
    records = [tmp_path / name for name in ("metrics.1.jsonl", "metrics.2.jsonl", "metrics.jsonl")]
    for seed in range(3):
        run(seed=seed, max_steps=1)
    heads = [json.loads(record.read_text().splitlines()[0]) for record in records]
    assert [head["run"]["settings"]["seed"] for head in heads] == [0, 1, 2]
    assert sorted(tmp_path.glob("metrics*")) == records
    assert read_run(tmp_path).settings["seed"] == 2


def test_full_disk_is_named_with_the_file(tmp_path):
    (tmp_path / FILE).symlink_to("/dev/full")
    recorder = Recorder()
    recorder.path = tmp_path / FILE
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / FILE}'"):
        recorder._write("{}\n")
