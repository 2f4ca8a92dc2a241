import io
import json
import logging
import math
import multiprocessing
import os
import signal
import struct
import sys
from pathlib import Path

import pytest
import yaml
from processes import preloaded
from rich.console import Console
from transformers import AutoModelForCausalLM

from trl_entropy.commands import cli
from trl_entropy.lab.compare import _table, compare, plot
from trl_entropy.lab.report.statistics import ends, smooth


FLAGS = ["--max_steps", "3", "--per_device_train_batch_size", "8", "--num_generations", "4"]
FLAGS += ["--max_completion_length", "12", "--logging_steps", "1", "--save_strategy", "no", "--report_to", "none"]
FLAGS += ["--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false", "--learning_rate", "1e-3"]


def arm(**changes) -> dict:
    """What one arm leaves: two logged steps."""
    scores = {"before": {"avg@8": 0.25, "pass@8": 0.5}, "after": {"avg@8": 0.375, "pass@8": 0.75}}
    return {"steps": [1, 2], "reward": [0.25, 0.75], "entropy": [1.5, 0.5], "target": None, **scores, **changes}


def printed(results: dict[str, dict]) -> list[list[str]]:
    """The cells of the table, line by line, without its rules."""
    console = Console(width=120, file=io.StringIO())
    console.print(_table(results))
    lines = [line.strip().replace("┃", "│") for line in console.file.getvalue().splitlines()]
    return [[cell.strip() for cell in line[1:-1].split("│")] for line in lines if line.count("│") > 1]


def size_of_png(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


def write_recipe(path: Path, **settings) -> str:
    path.write_text(yaml.safe_dump(settings))
    return str(path)


# Numbers


def test_ends_are_means_of_the_first_and_the_last_ten():
    assert ends([float(value) for value in range(1, 26)]) == (5.5, 20.5)  # 1..10 and 16..25


def test_ends_of_few_values_do_not_overlap():
    # 1.0, 0.9 ... 0.1: means of five
    assert ends([(10 - k) / 10 for k in range(10)]) == pytest.approx((0.8, 0.3), abs=1e-12)
    for number in range(2, 30):
        assert ends([1.0] * (number // 2) + [0.0] * (number - number // 2)) == (1.0, 0.0)
    assert ends([1.0, 2.0, 6.0]) == (1.0, 6.0)
    assert ends([4.0]) == (None, 4.0)


def test_mean_with_a_nan_is_nan():
    first, last = ends([1.0, 2.0, math.nan, 4.0])
    assert first == 1.5
    assert math.isnan(last)
    assert [math.isnan(value) for value in smooth([1.0, math.nan, *[1.0] * 10])] == [False, *[True] * 10, False]


def test_smooth_is_the_mean_of_the_last_ten():
    assert smooth([2.0, 4.0, 9.0]) == [2.0, 3.0, 5.0]
    values = [float(value) for value in range(1, 13)]
    assert smooth(values) == [*(sum(values[:n]) / n for n in range(1, 11)), 6.5, 7.5]
    assert smooth([]) == []


# Table and picture


def test_table_has_the_start_and_a_row_for_each_arm():
    head, start, plain, controlled = printed({"plain": arm(), "controlled": arm(target=0.6, entropy=[1.0, 0.75])})
    assert head == ["", "reward", "entropy", "target", "avg@8", "pass@8"]
    assert start == ["at the start", "0.25", "1.50", "-", "0.25", "0.50"]
    assert plain == ["plain", "0.75", "0.50", "-", "0.38", "0.75"]
    assert controlled == ["controlled", "0.75", "0.75", "0.60", "0.38", "0.75"]


def test_table_shows_what_is_missing_and_what_is_not_a_number():
    _, start, one, broken = printed({"one": arm(reward=[0.25], entropy=[1.5]), "broken": arm(entropy=[1.0, math.nan])})
    assert start[1:4] == ["-", "-", "-"]
    assert one[1:4] == ["0.25", "1.50", "-"]
    assert broken[1:4] == ["0.75", "nan", "-"]


def test_table_without_held_out_problems():
    head, *_, only = printed({"only": arm(before={}, after={})})
    assert head == ["", "reward", "entropy", "target"]
    assert only == ["only", "0.75", "0.50", "-"]


def test_plot_writes_a_picture_of_all_arms(tmp_path):
    plot({"plain": arm()}, tmp_path / "one.png")
    plot({"plain": arm(), "controlled": arm(target=0.6, entropy=[1.0, 0.75])}, tmp_path / "two.png")
    plot({"plain": arm(), "longer": arm(steps=[1, 2, 3], reward=[0.0] * 3, entropy=[1.0] * 3)}, tmp_path / "three.png")
    pictures = [tmp_path / f"{name}.png" for name in ("one", "two", "three")]
    assert [size_of_png(picture) for picture in pictures] == [(1875, 540)] * 3  # 12.5 x 3.6 inches, 150 dots each
    assert len({picture.read_bytes() for picture in pictures}) == 3


def test_picture_of_arms_without_held_out_problems_leaves_their_panel_out(tmp_path):
    plot({"plain": arm() | {"before": {}, "after": {}}}, tmp_path / "two_panels.png")
    assert size_of_png(tmp_path / "two_panels.png") == (1350, 540)  # 9 x 3.6 inches


# Runs


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Work in a folder of the test's own, and leave the search path and the loggers as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    level = logging.getLogger("trl_entropy").level
    yield
    logging.getLogger("trl_entropy").setLevel(level)
    assert multiprocessing.active_children() == []


def test_two_recipes_are_trained_side_by_side(alone, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: preloaded())
    plain = write_recipe(tmp_path / "plain.yaml", seed=1)
    control = {"entropy_control": "entropic", "controllers": {"entropic": {"target_ratio": 0.5, "start_steps": 1}}}
    held = write_recipe(tmp_path / "held.yaml", seed=1, **control)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("compare.json", "compare.png"):  # of an earlier comparison
        (out / name).write_text("old")
    cli.main(["compare", plain, held, "--output_dir", "out", "--jobs", "2", "--overwrite", *FLAGS])
    assert size_of_png(out / "compare.png") == (1875, 540)
    results = json.loads((out / "compare.json").read_text())
    assert list(results) == ["plain", "held"]
    for result in results.values():
        assert result["steps"] == [1, 2, 3]
        assert len(result["reward"]) == len(result["entropy"]) == 3
        assert all(0.0 <= reward <= 1.0 for reward in result["reward"])
        assert all(entropy > 0.0 for entropy in result["entropy"])
        for scores in (result["before"], result["after"]):
            assert scores.keys() == {"avg@8", "pass@8"}
            assert 0.0 <= scores["avg@8"] <= scores["pass@8"] <= 1.0
    # The arms start from the same policy, and the first step knows no control yet
    for key in ("reward", "entropy"):
        assert results["plain"][key][0] == results["held"][key][0]
    assert results["plain"]["before"] == results["held"]["before"] != results["held"]["after"]
    assert results["plain"]["entropy"] != results["held"]["entropy"]
    assert results["plain"]["target"] is None
    assert results["held"]["target"] == pytest.approx(0.5 * results["held"]["entropy"][0], rel=1e-6)
    for name in results:
        assert AutoModelForCausalLM.from_pretrained(out / name).num_parameters() == 495_616
        assert json.loads((out / name / "trainer_state.json").read_text())["global_step"] == 3
    output = capfd.readouterr().out
    assert "picture: " + os.path.join("out", "compare.png") in output
    assert "at the start" in output
    assert "held" in output


@pytest.mark.slow
def test_failed_arms_are_named_after_the_others_have_ended(alone, tmp_path, capfd):
    (tmp_path / "broken.py").write_text(
        "import os\n\n\ndef raises(completions, **kwargs):\n    raise LookupError('no such answer')\n\n\n"
        "def dies(completions, **kwargs):\n    os._exit(3)\n"
    )
    recipes = [
        write_recipe(tmp_path / "fine.yaml", seed=1),
        write_recipe(tmp_path / "raising.yaml", reward_funcs=["broken.raises"]),
        write_recipe(tmp_path / "dying.yaml", reward_funcs=["broken.dies"]),
    ]
    with pytest.raises(RuntimeError) as caught:
        compare(recipes, str(tmp_path / "out"), FLAGS, jobs=2)
    message = str(caught.value)
    assert "LookupError: no such answer" in message.partition("dying: ")[0].partition("raising: ")[2]
    assert "dying: A process in the process pool was terminated abruptly" in message
    assert "fine:" not in message
    assert multiprocessing.active_children() == []
    assert json.loads((tmp_path / "out" / "fine" / "trainer_state.json").read_text())["global_step"] == 3
    assert not (tmp_path / "out" / "compare.json").exists()


def no_process(monkeypatch):
    def start(process):
        pytest.fail("an arm is started")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)


def test_wrong_flag_of_any_arm_ends_the_command_before_one_starts(alone, monkeypatch, tmp_path, capsys):
    no_process(monkeypatch)
    fine = write_recipe(tmp_path / "fine.yaml", seed=1)
    wrong = write_recipe(tmp_path / "wrong.yaml", entropy_control="entropyguided")
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", fine, wrong, *FLAGS])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("trl-entropy compare: error: unknown entropy_control 'entropyguided'. Did you mean")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_starting_an_arm_would_be_seen(alone, monkeypatch, tmp_path, capfd):
    no_process(monkeypatch)
    with pytest.raises(RuntimeError, match="fine: an arm is started"):
        compare([write_recipe(tmp_path / "fine.yaml", seed=1)], str(tmp_path / "out"), FLAGS, jobs=1)


def test_interrupted_comparison_says_what_was_logged_if_anything(alone, monkeypatch, tmp_path, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    def last_line() -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main(["compare", recipe, other, *FLAGS, "--output_dir", str(tmp_path)])
        assert caught.value.code == 130
        return capsys.readouterr().err.splitlines()[-1]

    monkeypatch.setattr("trl_entropy.lab.compare._run", stop)
    recipe, other = (write_recipe(tmp_path / f"{name}.yaml", seed=1) for name in ("one", "other"))
    assert last_line() == "trl-entropy compare: stopped before a step was logged"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"run": {}}\n')  # its head
    assert last_line() == "trl-entropy compare: stopped before a step was logged"
    (tmp_path / "one" / "metrics.jsonl").write_text('{"run": {}}\n{"step": 1}\n')
    assert last_line() == f"trl-entropy compare: stopped; what was logged is in {tmp_path}/one/metrics.jsonl"


def test_recipes_of_one_name_are_refused(tmp_path):
    recipes = [str(tmp_path / "a" / "same.yaml"), str(tmp_path / "b" / "same.yaml")]
    with pytest.raises(ValueError, match="the recipes must have different file names, got .*same.yaml, .*same.yaml"):
        compare(recipes, str(tmp_path), [], jobs=1)


def test_missing_recipe_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--config must be a YAML file, but '.*missing.yaml' does not exist"):
        compare([str(tmp_path / "missing.yaml")], str(tmp_path), [], jobs=1)


@pytest.mark.parametrize("jobs", [0, -1])
def test_fewer_jobs_than_one_are_refused(alone, monkeypatch, tmp_path, jobs):
    def give_up(*args):
        raise TimeoutError("still waiting")

    no_process(monkeypatch)
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(1)
    try:
        with pytest.raises(ValueError, match="jobs"):
            compare([write_recipe(tmp_path / "fine.yaml", seed=1)], str(tmp_path / "out"), FLAGS, jobs=jobs)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
