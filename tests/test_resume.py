"""An interrupted run continues as if it had not been interrupted."""

import json

import pytest
import torch
from toy import EntropyGiven, logged, parameters, same
from transformers import TrainerCallback


SHARE = {"target_ratio": 0.97, "start_steps": 1}
CONTROLS = [
    {
        "entropy_control": "entropy_guided",
        "controllers": {"entropy_guided": {"initial": 0.5, **SHARE}},
    },
    {
        "entropy_control": "entropic",
        "loss_terms": {"confident_surrogate": {"threshold": 0.2}},
        "controllers": {"entropic": {"kp": 2.0, "ki": 0.5, **SHARE}},
    },
    {
        "entropy_control": "confident_sign",
        "token_weights": {"confident_sign": {"threshold": 0.2}},
        "controllers": {"confident_sign": {"kp": 2.0, "ki": 0.5, "kd": 1.0, "smoothing": 0.5, "slew": 0.2, **SHARE}},
    },
    {"entropy_control": "stage"},
]
STEPS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "max_completion_length": 5}


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("settings", CONTROLS, ids=lambda settings: settings["entropy_control"])
def test_resumed_run_is_the_uninterrupted_one(run, tmp_path, settings):
    whole = run(output_dir=tmp_path / "whole", **STEPS, **settings)
    first = run(output_dir=tmp_path / "parts", callbacks=[StopAt(3)], **STEPS, **settings)
    assert first.state.global_step == 3
    checkpoint = tmp_path / "parts" / "checkpoint-3"
    second = run(output_dir=tmp_path / "parts", resume=str(checkpoint), **STEPS, **settings)
    assert second.state.global_step == 6
    # exact: the knobs and errors of all six steps, the parameters and the state of the controllers
    names = [name for name in whole.state.log_history[0] if name.startswith(("knobs/", "controllers/", "entropy/"))]
    assert names
    for name in names:
        assert logged(second, name) == logged(whole, name)
    # some entropies have no tokens in some steps, such as that of likely tokens of positive advantage
    assert all(len(logged(whole, name)) == 6 for name in names if name.startswith(("knobs/", "controllers/")))
    assert same(parameters(second), parameters(whole))
    assert second.control_state() == whole.control_state()
    turned = {len(set(logged(whole, name))) for name in names if name.startswith("knobs/")}
    assert max(turned) > 2  # a knob has moved


@pytest.mark.parametrize("settings", CONTROLS, ids=lambda settings: settings["entropy_control"])
def test_state_stands_beside_the_checkpoint(run, tmp_path, settings):
    trainer = run(trainer_class=EntropyGiven, **{**STEPS, "max_steps": 3}, **settings)
    state = json.loads((tmp_path / "checkpoint-3" / "entropy_control.json").read_text())
    name = settings["entropy_control"]
    assert list(state) == ["version", "controllers", "measures"]
    assert list(state["controllers"]) == [name]
    # the value decided after step 3, which step 4 would use
    assert state["controllers"][name]["value"] == trainer.controllers[0].value
    assert state["controllers"][name]["knob"] in trainer.knobs


def test_checkpoint_of_a_run_without_controllers_holds_none(run, tmp_path):
    run(**{**STEPS, "max_steps": 3})
    assert json.loads((tmp_path / "checkpoint-3" / "entropy_control.json").read_text())["controllers"] == {}


def test_checkpoint_of_trl_is_refused_with_controllers_on(run, tmp_path):
    run(plain=True, **{**STEPS, "max_steps": 3})
    checkpoint = tmp_path / "checkpoint-3"
    message = r"entropy_control\.json has no state of controller 'entropy_guided' \(it has: none\): resume with"
    with pytest.raises(ValueError, match=message):
        run(resume=str(checkpoint), **STEPS, entropy_control="entropy_guided")


def test_checkpoint_of_trl_is_continued_without_controllers(run, tmp_path):
    whole = run(plain=True, output_dir=tmp_path / "whole", **STEPS)
    run(plain=True, output_dir=tmp_path / "parts", **STEPS)
    resumed = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-3"), **STEPS)
    assert same(parameters(resumed), parameters(whole))


def test_checkpoint_of_other_controllers_is_refused(run, tmp_path):
    run(**{**STEPS, "max_steps": 3}, entropy_control="stage")
    message = r"has no state of controller 'entropy_guided' \(it has: stage\)"
    with pytest.raises(ValueError, match=message):
        run(resume=str(tmp_path / "checkpoint-3"), **STEPS, entropy_control="entropy_guided")


def test_checkpoint_of_a_controller_that_is_off_now_is_continued_with_a_warning(run, tmp_path, caplog):
    run(**{**STEPS, "max_steps": 3}, entropy_control="stage")
    resumed = run(resume=str(tmp_path / "checkpoint-3"), **STEPS)
    assert "controller 'stage' was on in the run that wrote" in caplog.text
    assert resumed.knobs["positive_advantage_coef"] == 1.0


def test_knobs_that_no_controller_turns_come_from_the_config(run, tmp_path):
    run(**{**STEPS, "max_steps": 3}, positive_advantage_coef=0.5)
    resumed = run(resume=str(tmp_path / "checkpoint-3"), **STEPS, positive_advantage_coef=0.25)
    assert logged(resumed, "knobs/positive_advantage_coef") == [0.5] * 3 + [0.25] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"is damaged \(it is list, not dict\)"),
        ("null", r"is damaged \(it is NoneType, not dict\)"),
        ("{}", r"is damaged \(it has no controllers\)"),
        ('{"controllers": {"stage": {}}}', r"is damaged \(controllers\.stage has no knob\)"),
        ('{"controllers": {"stage": []}}', r"is damaged \(controllers\.stage is list, not dict\)"),
        ('{"controllers": {}, "measures": {"last": 1}}', r"is damaged \(measures\.last is int, not dict\)"),
        ('{"controllers": {}, "rollouts": {"stage": "a"}}', r"is damaged \(rollouts\.stage is str, not int\)"),
        ('{"version": "1", "controllers": {}}', r"is damaged \(version is str, not int\)"),
        ('{"version": 2, "controllers": {}}', r"has version 2 of the state, but this trl-entropy reads version 1"),
        ('{"contro', r"is damaged \(Unterminated string"),
        ("\udcff", r"is damaged \('utf-8' codec can't decode"),
    ],
)
def test_damaged_state_is_refused_in_a_line(build, tmp_path, text, message):
    trainer = build(entropy_control="stage")
    (tmp_path / "entropy_control.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"entropy_control\.json {message}"):
        trainer._load_optimizer_and_scheduler(str(tmp_path))


def test_state_without_a_version_is_read(build, tmp_path):
    trainer = build(entropy_control="stage")
    state = {"controllers": {"stage": {"knob": "positive_advantage_coef", "value": 0.5, "memory": {}}}}
    (tmp_path / "entropy_control.json").write_text(json.dumps(state))
    trainer._load_optimizer_and_scheduler(str(tmp_path))
    assert trainer.controllers[0].value == 0.5


def test_comparison_of_a_resumed_run_can_fail(run, tmp_path):
    # without the state of the controller the run goes on from another value
    settings = CONTROLS[0]
    whole = run(output_dir=tmp_path / "whole", **STEPS, **settings)
    folder = tmp_path / "whole" / "checkpoint-3"
    state = json.loads((folder / "entropy_control.json").read_text())
    state["controllers"]["entropy_guided"]["value"] += 0.3
    (folder / "entropy_control.json").write_text(json.dumps(state))
    resumed = run(output_dir=tmp_path / "whole", resume=str(folder), **STEPS, **settings)
    assert not same(parameters(resumed), parameters(whole))
    assert not torch.equal(*(torch.tensor(logged(t, "knobs/positive_advantage_coef")) for t in (resumed, whole)))
