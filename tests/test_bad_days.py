"""What goes wrong in long runs: each ends in an error that says why, or goes on as if nothing had been."""

import ast
import json
import os
import random
import signal
from pathlib import Path

import pytest
from processes import TESTS, run_script
from safetensors.torch import load_file
from test_package import sources
from toy import same, sums

from trl_entropy.commands import cli


NOISE = "authority/noise_share"
STEPS, SAVED_EVERY = 12, 3


@pytest.fixture(scope="module")
def arguments(model_dir, tmp_path_factory) -> list[str]:
    """Flags of a run with a controller and sampling of its own."""
    problems = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    sums().to_json(problems)
    flags = {
        **{"model_name_or_path": model_dir, "dataset_name": problems, "reward_funcs": "bad_days_run.reward"},
        **{"max_steps": STEPS, "save_steps": SAVED_EVERY, "per_device_train_batch_size": 8, "num_generations": 4},
        **{"max_completion_length": 6, "learning_rate": 0.01, "logging_steps": 1, "report_to": "none", "seed": 3},
        **{"gradient_checkpointing": False, "dtype": "float32", "rollout_rules": '{"dynamic_sampling": {}}'},
        **{"entropy_control": "entropic", "entropy_target_ratio": 0.9},
    }
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


def start(folder: Path, arguments: list[str], what: str = "nothing", step: int = 0, *more: str):
    done = run_script(TESTS / "bad_days_run.py", what, step, *arguments, "--output_dir", folder, *more)
    return done.returncode, done.stderr


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory) -> Path:
    """The run in which nothing went wrong."""
    folder = tmp_path_factory.mktemp("whole")
    code, errors = start(folder, arguments)
    assert code == 0, errors[-2000:]
    return folder


def is_the_whole_run(folder: Path, whole: Path) -> None:
    assert same(load_file(folder / "model.safetensors"), load_file(whole / "model.safetensors"))
    ours, theirs = ({row["step"]: row for row in rows(run) if "entropy" in row} for run in (folder, whole))
    assert ours.keys() == theirs.keys() == set(range(1, STEPS + 1))  # no lost line
    # a checkpoint keeps no gradient: the first step after it has none to compare with, where the others may have one
    without = {step for step, row in theirs.items() if NOISE in row and NOISE not in ours[step]}
    assert len(without) <= 1
    assert all(step % SAVED_EVERY == 1 for step in without)
    for step, row in theirs.items():
        timed = {name for name in row if "time" in name or name.endswith("per_second")}
        kept = row.keys() - timed - ({NOISE} if step in without else set())
        assert {name: ours[step][name] for name in kept} == pytest.approx(
            {name: row[name] for name in kept}, nan_ok=True
        )


def test_killed_run_goes_on_as_if_it_had_not_been(arguments, whole, tmp_path):
    step = random.Random(os.environ.get("PYTEST_SEED")).randrange(SAVED_EVERY + 1, STEPS)
    code, _ = start(tmp_path, arguments, "kill", step)
    assert code == -signal.SIGKILL
    assert rows(tmp_path)[-1]["step"] in (step - 1, step)
    code, errors = start(tmp_path, arguments, "nothing", 0, "--resume_from_checkpoint", "true")
    assert code == 0, errors[-2000:]
    is_the_whole_run(tmp_path, whole)


def test_full_disk_ends_the_run_and_the_checkpoint_before_is_found(arguments, whole, tmp_path):
    code, errors = start(tmp_path, arguments, "fill_disk", 6)
    assert code == 1
    assert "checkpoint-6 could not be written (" in errors
    assert (
        "GB are free. Once there is space, resume_from_checkpoint=true resumes from the previous checkpoint" in errors
    )
    assert (tmp_path / "checkpoint-6").exists()  # a part of it
    code, errors = start(tmp_path, arguments, "nothing", 0, "--resume_from_checkpoint", "true")
    assert code == 0, errors[-2000:]
    assert f"{tmp_path}/checkpoint-6 was not written completely and is skipped" in errors
    is_the_whole_run(tmp_path, whole)


def test_logits_that_are_no_numbers_end_the_run(arguments, tmp_path):
    code, errors = start(tmp_path, arguments, "not_a_number", 4)
    assert code == 1
    assert "FloatingPointError: the policy has parameters that are not finite after step 4: resume from" in errors
    assert [row["step"] for row in rows(tmp_path)[1:]] == [1, 2, 3, 4]


def test_reward_that_raises_ends_the_run_with_its_own_error(run, tmp_path):
    def broken(completions, **kwargs):
        raise ZeroDivisionError("no completions like these")

    with pytest.raises(ZeroDivisionError, match="no completions like these"):
        run(reward_funcs=broken)


TEXT = "1+1="
MESSAGES = [{"role": "user", "content": "1+1="}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "1+1="}]}]
NO_PROMPT = "row 1 of the dataset has no prompt in column 'problem': drop it"


@pytest.mark.parametrize(
    ("good", "bad", "line"),
    [
        (TEXT, "", NO_PROMPT),
        (TEXT, "  ", NO_PROMPT),
        (TEXT, None, NO_PROMPT),
        (MESSAGES, None, NO_PROMPT),
        (MESSAGES, [], NO_PROMPT),
        (MESSAGES, [{"role": "user", "content": ""}], NO_PROMPT),
        (MESSAGES, [{"role": "user", "content": None}], NO_PROMPT),
        (MESSAGES, [{"role": "user"}], NO_PROMPT),
        (PARTS, [{"role": "user", "content": []}], NO_PROMPT),
        (PARTS, [{"role": "user", "content": [{"type": "text", "text": None}]}], NO_PROMPT),
        (MESSAGES, [{"role": "system", "content": "1"}], "row 1 of the dataset has no message of the user in column"),
    ],
)
def test_row_without_a_prompt_is_refused_by_every_verb_before_a_model_loads(tmp_path, capsys, good, bad, line):
    problems = tmp_path / "problems.jsonl"
    rows = [{"problem": good, "solution": "2"}, {"problem": bad, "solution": "3"}]
    problems.write_text("\n".join(map(json.dumps, rows)))
    output = ["--output", str(tmp_path / "new.jsonl")]
    train = ["--model_name_or_path", "none", "--dataset_name", str(problems)]
    # nothing is loaded from this folder, which has no model
    model = ["--model", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    for verb in (
        ["grpo", *train, "--output_dir", str(tmp_path / "run")],
        ["data", "deduplicate", *output],
        ["data", "decontaminate", "--against", "math500", *output],
        ["data", "diversify", "--size", "1", *output],
        ["data", "semantic-entropy", *model, *output],
        ["eval", *model],
    ):
        dataset = [] if verb[0] == "grpo" else ["--dataset", str(problems)]
        with pytest.raises(SystemExit) as ended:
            cli.main([*verb, *dataset, "--prompt_column", "problem"])
        assert ended.value.code == 2
        name = " ".join(part for part in verb[:2] if not part.startswith("-"))
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"trl-entropy {name}: error: {line}")


# Checkpoints


SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
RULE = {"rollout_rules": {"prompt_temperature": {}}}
GUIDED = {"entropy_control": "entropy_guided"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, GUIDED, "has no state of controller 'entropy_guided'"),
        (
            GUIDED,
            {"entropy_control": "entropic"},
            "has no state of controller 'entropic' \\(it has: entropy_guided\\)",
        ),
        ({}, RULE, "has no state of rollout_rules prompt_temperature: resume without them"),
        (RULE, {}, "was written with other rollout_rules"),
        (RULE, {"rollout_rules": {"dynamic_sampling": {}}}, "was written with other rollout_rules"),
    ],
)
def test_checkpoint_of_another_method_is_refused(run, tmp_path, before, after, message):
    run(**SAVED, **before)
    with pytest.raises(ValueError, match=message):
        run(resume=str(tmp_path / "checkpoint-2"), **SAVED, **after)


def test_damaged_state_is_refused(run, tmp_path):
    run(**SAVED, **GUIDED)
    path = tmp_path / "checkpoint-2" / "entropy_control.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match=r"entropy_control\.json is damaged .*: resume from another checkpoint"):
        run(resume=str(tmp_path / "checkpoint-2"), **SAVED, **GUIDED)


def test_checkpoint_without_an_end_is_passed_over(run, tmp_path, caplog):
    whole = run(**SAVED, **GUIDED)
    (tmp_path / "checkpoint-4" / "entropy_control.json").unlink()
    resumed = run(resume=True, **SAVED, **GUIDED)
    assert "checkpoint-4 was not written completely and is skipped" in caplog.text
    assert resumed.state.global_step == 4
    assert len(resumed.state.log_history) == len(whole.state.log_history)


# No code in data


def unpicklers(tree: ast.Module) -> set[str]:
    """What a file calls or imports that runs code which it reads."""
    bad = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found |= bad & {name.split(".")[0] for name in names}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            safe = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if safe.get("weights_only") is not True and safe.get("allow_pickle", True) is not False:
                found.add(ast.unparse(node.func))
    return found


def test_nothing_of_a_run_is_unpickled():
    assert {path.name: found for path, tree in sources().items() if (found := unpicklers(tree))} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", {"pickle"}),
        ("from joblib import load", {"joblib"}),
        ("torch.load(path)", {"torch.load"}),
        ("torch.load(path, weights_only=True)", set()),
        ("json.load(file)", set()),
    ],
)
def test_unpickling_is_found(code, found):
    assert unpicklers(ast.parse(code)) == found
