"""What of the measures is logged, and what waits to be recorded."""

import json
from pathlib import Path

import pytest

from trl_entropy.measures import Log


VALUES = {
    "entropy/positive_advantage": 1.0,
    "entropy/decile_1": 2.0,
    "knobs/epsilon_low": 0.2,
    "knobs/entropy_coef": 0.1,
    "controllers/hold/error": -0.1,
}


@pytest.mark.parametrize(
    ("level", "logged", "waiting"),
    [
        ("none", set(), set()),
        (
            "basic",
            {"entropy/positive_advantage", "knobs/entropy_coef", "controllers/hold/error"},
            {"entropy/decile_1", "knobs/epsilon_low"},
        ),
        ("full", VALUES.keys(), set()),
    ],
)
def test_levels(level, logged, waiting):
    written = {}
    log = Log(level, ["entropy_coef"], written.update)
    log.add(VALUES)
    assert written.keys() == set(logged)
    assert log.take().keys() == set(waiting)


def test_what_waits_is_averaged_and_given_once():
    log = Log("basic", [], {}.update)
    for value in (1.0, 3.0):
        log.add({"entropy/decile_1": value})
    assert log.take() == {"entropy/decile_1": 2.0}
    assert log.take() == {}


def ours(row: dict) -> set[str]:
    """The keys of a logged step that TRL has not."""
    prefixes = ("entropy/", "groups/", "knobs/", "controllers/", "share/", "staleness/", "authority/", "covariance/")
    return {name for name in row if name.startswith((*prefixes, "gradient_mass/", "entropy_change/"))}


class Seen:
    """Keeps what a tracker gets."""

    def __init__(self):
        from transformers import TrainerCallback

        self.rows = rows = []

        class Tracker(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **kwargs):
                rows.append(dict(logs))

        self.callback = Tracker()


@pytest.mark.parametrize("level", ["none", "basic", "full"])
def test_a_run_logs_what_its_level_says(build, tmp_path, level):
    seen = Seen()
    hold = {"hold": {"law": "pi", "knob": "entropy_coef", "target": 0.5, "kp": 0.1, "ki": 0.1}}
    trainer = build(callbacks=[seen.callback], entropy_measures=level, controllers=hold, max_steps=3, logging_steps=1)
    trainer.train()
    steps = [row for row in seen.rows if "loss" in row]
    most = max(len(ours(row)) for row in steps)
    assert most == 0 if level == "none" else most <= 16 if level == "basic" else most > 30
    lines = Path(trainer.args.output_dir, "metrics.jsonl").read_text().splitlines()
    recorded = [json.loads(line) for line in lines[1:]]
    history = [row for row in trainer.state.log_history if "loss" in row]
    for row in (recorded[-2], history[-1]):  # the last line is of the end of training
        assert ("entropy/decile_1" in row) is (level != "none")
        assert ("knobs/epsilon_low" in row) is (level != "none")


def test_what_was_measured_last_is_recorded_at_the_end(build):
    trainer = build(max_steps=3, logging_steps=2)
    trainer.train()
    first, last = [row for row in trainer.state.log_history if "entropy/decile_1" in row]
    assert (first["step"], last["step"]) == (2, 3)
    assert "train_loss" in last
    trainer.train()
    assert trainer.metrics.take() == {}
