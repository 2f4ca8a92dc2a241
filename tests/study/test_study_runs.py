"""Arms are flags that the package takes; a run is trained once and kept."""

import json
import multiprocessing
import re
import time
from pathlib import Path

import pytest

from study import figures, language, problems, reasoner, runs, store
from study.__main__ import main
from study.arms import BASE, FIXED, LAWS_ON_KNOBS, SEEDS, TRIALS, Arm, flags
from study.runs import Run, train_all
from study.testbed import AUTHORITY
from study.tuning import chosen_arms, tried
from trl_entropy.commands.grpo import parse
from trl_entropy.data.splits import held_out_problems, known_numbers


LANGUAGE = language.CPU_ARMS | language.GPU_ARMS
ARMS = FIXED | TRIALS | LAWS_ON_KNOBS | AUTHORITY | LANGUAGE | chosen_arms(tried())


def words(name: str) -> tuple[str, ...]:
    """The flags of an arm without their numbers."""
    return tuple(re.sub(r"\d[\d.e-]*", "", text) for text in flags(ARMS[name], 1, "out/study"))


@pytest.mark.parametrize("name", {words(name): name for name in ARMS}.values())
def test_flags_of_an_arm_are_taken(name, tmp_path):
    given = flags(ARMS[name], 1, "out/study")
    if name.startswith("gpu_"):
        given += ["--bf16", "false", "--use_cpu", "true"]
    if "smollm2" in name or any("reasoner" in flag for flag in given):  # a model that is made first
        given += ["--model_name_or_path", str(tmp_path)]
    assert parse(given).training.seed == 1


def test_kept_flags_are_those_of_the_arm():
    for run in store.every():
        assert Run(run["arm"], ARMS[run["arm"]], run["seed"]).is_kept, (run["arm"], run["seed"])


def test_arm_changes_what_it_says_and_nothing_else():
    base, other = (flags(arm, 1, "out") for arm in (Arm({}), Arm({"epsilon_high": 0.28})))
    assert other == [*base[: 2 * len(BASE)], "--epsilon_high", "0.28", *base[2 * len(BASE) :]]


def test_left_out_flag_and_seed_in_a_name():
    given = flags(Arm({"subset_size": None, "dataset_name": "{folder}/kmeans_{seed}.jsonl"}), 3, "here")
    assert "--subset_size" not in given
    assert given[given.index("--dataset_name") + 1] == "here/kmeans_3.jsonl"


def test_problems(tmp_path):
    problems.write(tmp_path, [1, 2])
    rows = {
        path.stem: [json.loads(line)["number"] for line in path.read_text().splitlines()]
        for path in tmp_path.glob("*.jsonl")
    }
    assert sorted(rows["all"]) == sorted(known_numbers())
    assert not set(rows["all"]) & set(held_out_problems()["number"])
    for seed in (1, 2):
        assert len(set(rows[f"kmeans_{seed}"])) == len(set(rows[f"narrow_{seed}"])) == problems.NARROW
        at = sorted(known_numbers()).index(rows[f"narrow_{seed}"][0])
        assert rows[f"narrow_{seed}"] == sorted(known_numbers())[at : at + problems.NARROW]
    assert rows["kmeans_1"] != rows["narrow_1"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder for runs, and an arm of four steps."""
    monkeypatch.setattr(store, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(
        store, "SECTION", store.SECTION | {"small": "collapse", "other": "updates", "wrong": "updates"}
    )
    monkeypatch.setattr(runs, "PROBLEMS", tmp_path / "problems")
    problems.write(tmp_path / "problems", SEEDS[:1])
    held_out = tmp_path / "problems" / "held_out.jsonl"
    held_out.write_text("\n".join(held_out.read_text().splitlines()[:10]))
    return Arm({"max_steps": 4, "pass_at_k_every": 4, "per_device_train_batch_size": 16}, 2)


def test_run_is_kept(small):
    run = Run("small", small, 1)
    kept = runs.train(run)
    assert kept["series"]["step"] == [2, 4]
    assert len(kept["series"]["entropy"]) == 2
    assert [row["step"] for row in kept["scores"]] == [0, 4]
    assert 0 < kept["scores"][0]["avg@8"] < 1
    again = runs.train(run)
    assert {**kept, "seconds": 0} == {**again, "seconds": 0}


def test_kept_runs_are_not_trained_again(small):
    run = Run("small", small, 1)
    content = {"arm": "small", "seed": 1, "flags": run.flags, "window": 2, "kept": True}
    store.write(content)
    train_all([run], jobs=1)
    assert store.load("small", 1) == content


@pytest.mark.parametrize("other", [{"flags": ["--seed", "2"]}, {"window": 3}])
def test_run_that_was_kept_with_other_settings_is_not_taken(small, other):
    run = Run("small", small, 1)
    content = {"arm": "small", "seed": 1, "flags": run.flags, "window": 2}
    store.write(content)
    assert run.is_kept
    store.write({**content, **other})
    assert not run.is_kept


def test_run_with_the_same_flags_is_taken_over(small):
    content = {"arm": "small", "seed": 1, "flags": flags(small, 1, str(runs.PROBLEMS)), "window": 2}
    store.write(content)
    train_all([Run("other", small, 1)], jobs=1)
    assert store.load("other", 1) == {**content, "arm": "other"}


def test_wrong_flag_ends_before_any_run(small):
    with pytest.raises(ValueError, match="epsilon_hgih"):
        train_all([Run("small", small, 1), Run("wrong", Arm({"epsilon_hgih": 1}), 1)], jobs=1)
    assert not store.FOLDER.exists()


def test_runs_that_have_not_ended_in_time_are_given_up(small, capfd):
    long = Run("other", small._replace(flags={**small.flags, "max_steps": 100000}), 1)
    start = time.monotonic()
    train_all([long._replace(seed=seed) for seed in range(1, 7)], jobs=2, minutes=0.05)
    assert time.monotonic() - start < 30
    assert "0.05 minutes are over: 0 of 6 runs are kept" in capfd.readouterr().err
    assert multiprocessing.active_children() == []
    assert store.load("other", 1) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--gpu"], "--gpu is for --language_model"),
        (["--minutes", "1"], "--minutes is for --language_model"),
        (["--language_model", "--minutes", "nan"], "argument --minutes: must be a number >= 0, got 'nan'"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--language_model"], "there is no file 'out/chain_sum/train.jsonl'"),
    ],
)
def test_wrong_flags_end_before_any_run(small, given, message, monkeypatch, tmp_path, capsys):
    config = Path(runs.__file__).parent.parent / "recipes" / "smollm2_sums_grpo.yaml"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / config.name).write_text(config.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["study", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_part_without_the_runs_that_it_chooses_by(small, monkeypatch, tmp_path, capsys):
    (tmp_path / "recipes").symlink_to(Path(runs.__file__).parent.parent / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reasoner, "write", lambda folder: pytest.fail("a part of the embedded policy needs none"))
    monkeypatch.setattr("study.__main__.write", lambda folder, seeds: None)
    for part in ("rates", "methods"):
        monkeypatch.setattr("sys.argv", ["study", "--part", part])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "no run of grpo.0.shared is kept" in capsys.readouterr().err


def test_without_runs_nothing_is_drawn(small, monkeypatch, capsys):
    monkeypatch.setattr(figures, "draw_all", lambda: pytest.fail("drawn"))
    monkeypatch.setattr("sys.argv", ["study", "--only_report"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no run is kept in" in capsys.readouterr().err


def test_a_figure_that_cannot_be_drawn_leaves_the_others(small, monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "images")
    with pytest.raises(ValueError, match="at least one"):
        figures.draw_all()
    assert not figures.FOLDER.exists()
