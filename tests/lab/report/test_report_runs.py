import json
import math
import os

import pytest
from made import rows, write_log, write_state

from trl_entropy.lab.report.runs import Run, find_runs, read_run


# One run


def test_log_is_read_by_key(tmp_path):
    run = {"settings": {"seed": 3, "max_steps": 4}, "versions": {"trl": "1.16.0"}, "started": 5.0}
    first = {"step": 1, "time": 10.0, "entropy": 0.5, "epoch": 0.5}
    second = {"step": 2, "time": 12.5, "entropy": 0.25, "eval_reward": 1}
    read = read_run(write_log(tmp_path / "a", first, second, run=run))
    assert read.name == "a"
    assert read.series["entropy"] == ([1, 2], [0.5, 0.25])
    assert read.series["eval_reward"] == ([2], [1.0])
    assert (read.settings, read.versions) == ({"seed": 3, "max_steps": 4}, {"trl": "1.16.0"})
    assert (read.last_step, read.max_steps, read.last_time, read.unreadable) == (2, 4, 12.5, 0)
    assert not read.finished


def test_values_that_are_no_numbers_are_left_out_and_nan_is_one(tmp_path):
    row = {"step": 1, "entropy": math.nan, "loss": math.inf, "note": "x", "flag": True, "none": None}
    read = read_run(write_log(tmp_path, row))
    assert read.series.keys() == {"entropy", "loss"}
    assert math.isnan(read.series["entropy"].values[0])
    assert read.series["loss"].values == [math.inf]


def test_last_line_may_be_cut(tmp_path):
    read = read_run(write_log(tmp_path, *rows(2, entropy=0.5), end='{"step": 3, "entr'))
    assert read.series["entropy"] == ([1, 2], [0.5, 0.5])
    assert read.unreadable == 1


def test_line_that_was_cut_before_a_resume_is_left_out(tmp_path):
    folder = write_log(tmp_path, *rows(2, entropy=0.5), end='{"step": 3, "ent{"step": 3, "entropy": 0.4}\n{"step": 4}')
    read = read_run(folder)
    assert read.series["entropy"] == ([1, 2], [0.5, 0.5])
    assert read.unreadable == 1


def test_rows_of_one_step_are_one_and_the_last_value_counts(tmp_path):
    read = read_run(write_log(tmp_path, {"step": 1, "a": 1, "b": 1}, {"step": 1, "b": 2, "eval_c": 3}))
    assert {key: values for key, (_, values) in read.series.items()} == {"a": [1.0], "b": [2.0], "eval_c": [3.0]}


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    before = rows(5, entropy=lambda step: step / 10)
    after = rows(2, start=3, entropy=lambda step: step)  # resumed from the checkpoint of step 2
    read = read_run(write_log(tmp_path, *before, *after))
    assert read.series["entropy"] == ([1, 2, 3, 4], [0.1, 0.2, 3.0, 4.0])


def test_resume_between_two_logged_steps(tmp_path):
    before = [{"step": step, "entropy": step} for step in (10, 20, 30)]
    read = read_run(write_log(tmp_path, *before, {"step": 25, "entropy": 1}))
    assert read.series["entropy"] == ([10, 20, 25], [10.0, 20.0, 1.0])


def test_state_of_trl_is_read(tmp_path):
    read = read_run(write_state(tmp_path, *rows(3, entropy=0.5), max_steps=3, global_step=3))
    assert read.series["entropy"].steps == [1, 2, 3]
    assert (read.max_steps, read.settings, read.finished) == (3, {}, True)


def test_newest_checkpoint_is_read_and_the_log_goes_first(tmp_path):
    for number in (5, 50, 10):
        write_state(tmp_path / f"checkpoint-{number}", *rows(number, entropy=float(number)), max_steps=60)
    write_state(tmp_path / "checkpoint-best", *rows(1))
    assert read_run(tmp_path).last_step == 50
    write_log(tmp_path, *rows(7, entropy=0.5))
    assert (read_run(tmp_path).last_step, read_run(tmp_path).max_steps) == (7, 60)


def test_last_time_without_times_is_that_of_the_file(tmp_path):
    write_state(tmp_path, *rows(1))
    os.utime(tmp_path / "trainer_state.json", (100, 100))
    assert read_run(tmp_path).last_time == 100.0


@pytest.mark.parametrize(
    ("last", "max_steps", "finished"),
    [({"step": 3, "train_runtime": 1.0}, 9, True), ({"step": 9, "entropy": 1}, 9, True), ({"step": 8}, 9, False)],
)
def test_run_that_came_to_its_end_is_finished(tmp_path, last, max_steps, finished):
    assert (
        read_run(write_log(tmp_path, *rows(2, a=1), last, run={"settings": {"max_steps": max_steps}})).finished
        is finished
    )


def test_run_that_was_resumed_after_its_end_is_not_finished(tmp_path):
    end = {"step": 3, "train_runtime": 1.0}
    assert not read_run(write_log(tmp_path, *rows(3, a=1), end, {"step": 4, "a": 1})).finished
    assert not Run("a", tmp_path).finished


def test_scores_of_an_arm_stand_in_the_folder_above(tmp_path):
    write_state(tmp_path / "pi", *rows(1))
    arms = {"pi": {"before": {"pass@8": 0.5}, "after": {"pass@8": 0.75}, "steps": [1]}, "grpo": {"before": {}}}
    (tmp_path / "compare.json").write_text(json.dumps(arms))
    assert read_run(tmp_path / "pi").scores == {"before": {"pass@8": 0.5}, "after": {"pass@8": 0.75}}
    assert read_run(write_state(tmp_path / "grpo", *rows(1))).scores == {}


@pytest.mark.parametrize(("text", "reason"), [("{", "is not JSON"), ("[1]", "is not a JSON object")])
def test_state_that_is_no_json_is_refused(tmp_path, text, reason):
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(ValueError, match=f"trainer_state.json' {reason}"):
        read_run(tmp_path)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"is not a run: looked for metrics.jsonl, trainer_state.json and checkpoint-\*/"
    ):
        read_run(tmp_path)


def test_state_of_a_real_run_of_trl_is_read(run, tmp_path):
    trainer = run(plain=True, output_dir=tmp_path / "real", max_steps=3)
    trainer.save_state()
    read = read_run(tmp_path / "real")
    assert (read.last_step, read.max_steps, read.finished, read.settings) == (3, 3, True, {})
    logged = [row for row in trainer.state.log_history if "entropy" in row]
    for key in ("entropy", "reward", "clip_ratio/low_mean"):
        assert read.series[key].values == [row[key] for row in logged]


def test_log_of_a_real_run_that_was_resumed_is_read(run, tmp_path):
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    arguments |= {"entropy_control": "entropic", "entropy_target": 1.0}
    run(**arguments)
    again = run(resume=str(tmp_path / "checkpoint-2"), **arguments)
    read = read_run(tmp_path)
    assert (read.last_step, read.max_steps, read.finished, read.unreadable) == (4, 4, True, 0)
    logged = [row for row in again.state.log_history if "entropy" in row]
    for key in ("entropy", "entropy/positive_advantage", "controllers/entropic/target"):
        values = [row[key] for row in logged if key in row]
        assert values
        assert read.series[key].values == values
    assert read.settings["controllers"]["entropic"]["knob"] == "loss_terms.confident_surrogate.alpha"
    assert read.versions.keys() >= {"trl", "transformers"}


# Folders


def test_run_and_folders_of_runs_are_found(tmp_path):
    for seed in (2, 10):
        for arm in ("pi", "grpo"):
            write_state(tmp_path / "out" / f"seed{seed}" / arm, *rows(1, a=1))
    write_log(tmp_path / "alone", *rows(1, a=1))
    assert [run.name for run in find_runs([tmp_path / "alone"])] == ["alone"]
    assert [run.name for run in find_runs([tmp_path / "out" / "seed2"])] == ["grpo", "pi"]
    names = ["seed2/grpo", "seed2/pi", "seed10/grpo", "seed10/pi"]
    assert [run.name for run in find_runs([tmp_path / "out"])] == names
    assert [run.name for run in find_runs([tmp_path / "out", tmp_path / "alone", tmp_path / "out"])] == [
        *names,
        "alone",
    ]


def test_checkpoints_of_a_run_are_no_runs(tmp_path):
    write_state(tmp_path / "a" / "checkpoint-5", *rows(5))
    assert [run.path.name for run in find_runs([tmp_path])] == ["a"]


def test_arms_come_in_the_order_of_the_comparison(tmp_path):
    for arm in ("a", "b", "c"):
        write_state(tmp_path / arm, *rows(1))
    (tmp_path / "compare.json").write_text(json.dumps({"c": {}, "a": {}}))
    assert [run.name for run in find_runs([tmp_path])] == ["c", "a", "b"]


def test_names_are_as_long_as_they_must_be(tmp_path):
    folders = [tmp_path / name for name in ("x/one/a", "y/one/a", "y/two/a", "y/b")]
    for folder in folders:
        write_state(folder, *rows(1))
    assert [run.name for run in find_runs(folders)] == ["x/one/a", "y/one/a", "two/a", "b"]


def test_folders_three_below_are_not_searched(tmp_path):
    write_state(tmp_path / "a" / "b" / "c", *rows(1))
    with pytest.raises(ValueError, match="has no run: looked for metrics.jsonl"):
        find_runs([tmp_path])
    assert len(find_runs([tmp_path / "a"])) == 1


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'.*/gone' is not a folder: looked for metrics.jsonl"):
        find_runs([tmp_path / "gone"])
