"""A controller on TRL's own trainer."""

import json
import math
from pathlib import Path

import pytest
import transformers
from test_docs import blocks
from toy import PlainGiven, build_trainer, logged, parameters, same
from transformers import TrainerCallback, TrainerState
from trl import GRPOTrainer

from trl_entropy import EntropyCallback, EntropyController, EntropyWatchdog, SeamError
from trl_entropy._seam import logged_signal
from trl_entropy.control.advice import NO_AUTHORITY, PREDICTED
from trl_entropy.control.controller import build_controllers
from trl_entropy.control.knobs import TRL_KNOBS, rule_knobs
from trl_entropy.control.laws import Observation
from trl_entropy.measures.rules import PATIENCE
from trl_entropy.rules.weights import Sign


PI = {"law": "pi", "knob": "entropy_coef", "target": 2.0, "kp": 0.5, "ki": 0.1}


@pytest.fixture
def train(build):
    """Train TRL's trainer with an attached callback: `train(settings, **arguments)` gives the trainer."""

    def make(settings: dict, resume=None, **arguments):
        trainer = build(plain=True, **arguments)
        EntropyCallback(**settings).attach(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return make


def pi_by_hand(entropies: list[float], target: float, kp: float, ki: float) -> list[float]:
    """Values of a knob that raises entropy: in force in step 1, 2, ..., and after the last."""
    errors = [target - entropy for entropy in entropies]
    return [0.0] + [kp * error + ki * sum(errors[:k]) for k, error in enumerate(errors)]


def test_knob_follows_the_law_and_trl_uses_it(train):
    trainer = train(PI, max_steps=4)
    assert type(trainer) is GRPOTrainer
    entropies = logged(trainer, "entropy")
    values = pi_by_hand(entropies, target=2.0, kp=0.5, ki=0.1)
    assert len(set(values)) == 5
    assert logged(trainer, "knobs/entropy_coef") == pytest.approx(values[:4], abs=1e-12)
    # what TRL logs is what its loss has used
    assert logged(trainer, "entropy_coef") == logged(trainer, "knobs/entropy_coef")
    assert trainer.entropy_coef == pytest.approx(values[4], abs=1e-12)
    assert logged(trainer, "controllers/entropy_coef/target") == [2.0] * 4
    assert logged(trainer, "controllers/entropy_coef/error") == [2.0 - entropy for entropy in entropies]


def test_bonus_acts_in_a_run_that_began_without_one(train, run, tmp_path):
    # the second step is the first with another coefficient
    plain = parameters(run(plain=True, max_steps=2))
    assert not same(parameters(train(PI, max_steps=2)), plain)
    # and a law that leaves the coefficient at 0 leaves the run as it is
    assert same(parameters(train({**PI, "kp": 0.0, "ki": 0.0}, max_steps=2)), plain)


@pytest.mark.parametrize(("knob", "sign"), [("epsilon_low", -1), ("epsilon_high", 1)])
def test_clip_bounds_are_turned_in_their_direction(train, knob, sign):
    law = {"law": "bang_bang", "knob": knob, "target": 9.0, "step": 0.0625, "name": "clip"}
    trainer = train(law, epsilon=0.25, num_iterations=2)
    # entropy is below 9: more is asked for at every step
    values = [0.25 + sign * 0.0625 * k for k in range(4)]
    assert logged(trainer, f"knobs/{knob}") == values[:3]
    assert getattr(trainer, knob) == values[3]
    assert len(logged(trainer, "controllers/clip/error")) == 3


def test_value_is_clipped_to_the_range_of_the_controller(train):
    trainer = train({**PI, "target": 9.0, "low": 0.0, "high": 0.01})
    assert logged(trainer, "knobs/entropy_coef") == [0.0, 0.01, 0.01]


def test_target_may_be_a_share_of_the_first_entropy(train):
    settings = {key: value for key, value in PI.items() if key != "target"}
    trainer = train({**settings, "target_ratio": 0.5, "start_steps": 1})
    entropies = logged(trainer, "entropy")
    assert logged(trainer, "controllers/entropy_coef/target") == [0.5 * entropies[0]] * 3
    values = pi_by_hand(entropies, target=0.5 * entropies[0], kp=0.5, ki=0.1)
    assert logged(trainer, "knobs/entropy_coef") == pytest.approx(values[:3], abs=1e-12)


def test_schedule_needs_no_target(train):
    trainer = train({"law": "stage", "knob": "epsilon_high"}, max_steps=4, num_iterations=2)
    assert logged(trainer, "knobs/epsilon_high") == [0.0, 0.0, 0.0, 0.5]
    assert logged(trainer, "controllers/epsilon_high/target") == []


def test_callback_may_stand_in_callbacks_and_is_called_once(build):
    callback = EntropyCallback(**PI)
    trainer = build(plain=True, callbacks=[callback])
    assert callback.attach(trainer) is callback
    trainer.train()
    assert trainer.callback_handler.callbacks.count(callback) == 1
    values = pi_by_hand(logged(trainer, "entropy"), target=2.0, kp=0.5, ki=0.1)
    assert trainer.entropy_coef == pytest.approx(values[3], abs=1e-12)


def test_two_callbacks_turn_two_knobs(build):
    trainer = build(plain=True, num_iterations=2)
    EntropyCallback(**PI).attach(trainer)
    EntropyCallback(law="bang_bang", knob="epsilon_high", target=9.0, step=0.1).attach(trainer)
    trainer.train()
    assert logged(trainer, "knobs/epsilon_high") == pytest.approx([0.2, 0.3, 0.4], abs=1e-12)
    assert len(set(logged(trainer, "knobs/entropy_coef"))) == 3


def test_transformers_does_not_tell_of_two_controllers(build, monkeypatch):
    told = []
    monkeypatch.setattr(transformers.trainer_callback.logger, "warning", told.append)
    specs = [PI, {"law": "stage", "knob": "epsilon_high"}]
    plain = build(plain=True, num_iterations=2)
    for spec in specs:
        EntropyCallback(**spec).attach(plain)
    ours = build(num_iterations=2, controllers={f"c{place}": spec for place, spec in enumerate(specs)})
    assert told == []
    ours.add_callback(next(one for one in ours.callback_handler.callbacks if type(one) is EntropyController))
    assert len(told) == 1


# The entropy it reads


def test_entropy_of_several_micro_batches_is_the_one_that_trl_logs(train):
    split = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    trainer = train(PI, **split)
    read = [2.0 - error for error in logged(trainer, "controllers/entropy_coef/error")]
    assert read == pytest.approx(logged(trainer, "entropy"), abs=1e-12)


def test_every_step_is_read_whatever_is_logged(train):
    settings = {"trainer_class": PlainGiven, "max_steps": 4}
    every, seldom = train(PI, **settings), train(PI, **settings, logging_steps=2)
    assert seldom.entropy_coef == every.entropy_coef
    errors = logged(every, "controllers/entropy_coef/error")
    assert logged(seldom, "controllers/entropy_coef/error") == pytest.approx(
        [(errors[0] + errors[1]) / 2, (errors[2] + errors[3]) / 2], abs=1e-12
    )


def test_evaluation_changes_nothing(train, dataset):
    settings = {"trainer_class": PlainGiven, "max_steps": 3}
    evaluated = train(PI, **settings, eval_strategy="steps", eval_steps=1, eval_dataset=dataset.select(range(2)))
    assert len(logged(evaluated, "eval_entropy")) == 3
    trainer = train(PI, **settings)
    # evaluation draws random numbers, so TRL shuffles the next batch otherwise: sums differ by rounding
    close = pytest.approx([*logged(trainer, "knobs/entropy_coef"), trainer.entropy_coef], abs=1e-5)
    assert [*logged(evaluated, "knobs/entropy_coef"), evaluated.entropy_coef] == close
    assert abs(logged(evaluated, "eval_entropy")[0] - logged(evaluated, "entropy")[0]) > 1e-2  # would be seen
    before = trainer.entropy_coef
    trainer.evaluate(dataset.select(range(2)))
    assert trainer.entropy_coef == before


class Truncating(PlainGiven):
    truncated_at = (1,)


def test_step_without_tokens_leaves_the_knob(train):
    law = {"law": "bang_bang", "knob": "entropy_coef", "target": 9.0, "step": 0.125}
    trainer = train(law, trainer_class=Truncating, mask_truncated_completions=True)
    assert logged(trainer, "entropy")[1] == 0.0  # what TRL logs for it
    assert logged(trainer, "knobs/entropy_coef") == [0.0, 0.125, 0.125]
    assert trainer.entropy_coef == 0.25


def test_trainer_that_logs_no_entropy_is_refused(build):
    trainer = build(plain=True)
    with pytest.raises(SeamError, match="TRL did not log entropy for this optimizer step"):
        logged_signal(trainer, "entropy")


class Cut(PlainGiven):
    truncated_at = (2,)  # of the rollout that steps 3 and 4 are trained on


@pytest.mark.parametrize("accumulation", [1, 2])
def test_step_without_tokens_is_no_clip_ratio_of_0(train, accumulation):
    law = {"law": "bang_bang", "knob": "epsilon_low", "target": 0.05, "raises_signal": False, "step": 0.125}
    settings = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 8 // accumulation}
    trainer = train(
        {**law, "signal": "clip_ratio/low_mean"},
        trainer_class=Cut,
        mask_truncated_completions=True,
        epsilon=0.5,
        num_iterations=2,
        max_steps=4,
        **settings,
    )
    values = logged(trainer, "knobs/epsilon_low")
    assert values[1] == 0.375  # step 1 clips nothing, which is below the target
    assert values[2] == values[3] == trainer.epsilon_low
    assert logged(trainer, "clip_ratio/low_mean")[2:] == [0.0, 0.0]  # what TRL logs


# A knob that does nothing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"each rollout batch gets one optimizer update, so ratios stay 1: set num_iterations=2 or steps_per_gene",
        ),
        ({"num_iterations": 2, "loss_type": "sapo"}, r"loss_type='sapo' reads neither bound: set another loss_type"),
    ],
)
def test_bound_that_never_acts_is_refused(build, settings, message):
    with pytest.raises(
        ValueError, match=rf"the callback of epsilon_high would do nothing with epsilon_high: {message}"
    ):
        EntropyCallback(law="constant", knob="epsilon_high", value=0.3).attach(build(plain=True, **settings))


IDLE = {"max_steps": PATIENCE + 2, "num_iterations": 2, "max_completion_length": 2}


@pytest.mark.parametrize("plain", [True, False])
def test_bound_that_clips_no_token_is_told_once(train, run, caplog, plain):
    spec = {"law": "constant", "knob": "epsilon_high", "value": 50.0}
    if plain:
        train(spec, **IDLE)
    else:
        run(controllers={"wide": spec, "tight": {"law": "constant", "knob": "epsilon_low", "value": 0.0}}, **IDLE)
    told = [record.getMessage() for record in caplog.records if "changed no token" in record.getMessage()]
    assert [text.split(":")[0] for text in told] == [f"epsilon_high changed no token in its first {PATIENCE} steps"]


def test_coefficient_of_a_sign_that_no_token_has_is_told_once(run, caplog):
    spec = {"law": "stage", "knob": "positive_advantage_coef"}
    run(controllers={"late": spec}, reward_funcs=lambda completions, **_: [1.0] * len(completions), **IDLE)
    assert caplog.text.count(f"positive_advantage_coef changed no token in its first {PATIENCE} steps") == 1


# A second run


@pytest.mark.parametrize("plain", [True, False])
def test_a_second_call_of_train_begins_anew(build, plain):
    # a target out of reach, so that the values do not depend on the policy
    specs = {
        "ramp": {"law": "schedule", "knob": "epsilon_high", "start": 0.5, "end": 1.0},
        "out": {"law": "bang_bang", "knob": "entropy_coef", "target": 99.0, "step": 0.125},
        "share": {"law": "bang_bang", "knob": "epsilon_low", "target_ratio": 99.0, "start_steps": 2, "step": 0.0625},
    }
    trainer = build(plain=plain, num_iterations=2, max_steps=4, **({} if plain else {"controllers": specs}))
    for name, spec in specs.items() if plain else ():
        EntropyCallback(**spec, name=name).attach(trainer)
    runs = []
    for _ in range(2):
        trainer.train()
        names = [f"knobs/{spec['knob']}" for spec in specs.values()] + ["controllers/share/start"]
        runs.append({name: logged(trainer, name) for name in names})
        starts = runs[-1].pop("controllers/share/start")
        assert starts == pytest.approx([sum(logged(trainer, "entropy")[:2]) / 2] * 3, abs=1e-6)
    assert runs[0] == runs[1]
    assert runs[0]["knobs/entropy_coef"] == [0.0, 0.125, 0.25, 0.375]


# Checkpoints


STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("restore", [False, True])
def test_resumed_run_is_the_uninterrupted_one(train, tmp_path, restore):
    settings = {key: value for key, value in PI.items() if key != "target"} | {"target_ratio": 0.9, "start_steps": 3}
    whole = train(settings, output_dir=tmp_path / "whole", **STEPS)
    train(settings, output_dir=tmp_path / "parts", callbacks=[StopAt(2)], **STEPS)
    checkpoint = str(tmp_path / "parts" / "checkpoint-2")
    resumed = train(
        settings,
        resume=checkpoint,
        output_dir=tmp_path / "parts",
        restore_callback_states_from_checkpoint=restore,
        **STEPS,
    )
    # the starting entropy is measured over 3 steps, from before the checkpoint to after it
    for name, times in (("knobs/entropy_coef", 4), ("controllers/entropy_coef/target", 2)):
        assert len(logged(whole, name)) == times
        assert logged(resumed, name) == logged(whole, name)
    assert resumed.entropy_coef == whole.entropy_coef
    assert same(parameters(resumed), parameters(whole))


def test_state_stands_in_the_state_of_the_trainer(train, tmp_path):
    trainer = train(PI, **{**STEPS, "max_steps": 2})
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert state["controllers/entropy_coef"]["value"] == trainer.entropy_coef


def test_checkpoint_without_its_state_is_refused(train, run, tmp_path):
    run(plain=True, **{**STEPS, "max_steps": 2})
    with pytest.raises(
        ValueError, match="step 2 has no state of controllers/entropy_coef: resume with the same callbacks"
    ):
        train(PI, resume=str(tmp_path / "checkpoint-2"), **STEPS)


def test_damaged_state_is_refused(train, tmp_path):
    train(PI, **{**STEPS, "max_steps": 2})
    file = tmp_path / "checkpoint-2" / "trainer_state.json"
    state = json.loads(file.read_text())
    state["stateful_callbacks"]["controllers/entropy_coef"] = []
    file.write_text(json.dumps(state))
    message = (
        r"trainer_state\.json of the checkpoint is damaged \(controllers\.entropy_coef is list, not dict\): resume"
    )
    with pytest.raises(ValueError, match=message):
        train(PI, resume=str(tmp_path / "checkpoint-2"), **STEPS)


# Refused


@pytest.mark.parametrize("knob", ["positive_advantage_coef", "token_weights.confident_sign.alpha", "epsilon"])
def test_knob_that_plain_trl_does_not_have_is_refused(knob):
    message = r"must be epsilon_low, epsilon_high or entropy_coef, got '.*': the knobs of rules need an EntropyGRPOTr"
    with pytest.raises(ValueError, match=message):
        EntropyCallback(law="pi", knob=knob, target=0.3)


def test_callback_without_a_trainer_is_refused(run):
    message = (
        r"the callback of entropy_coef is not attached to a trainer: call attach\(trainer\) before trainer\.train"
    )
    with pytest.raises(ValueError, match=message):
        run(plain=True, callbacks=[EntropyCallback(**PI)])


def test_two_controls_of_entropy_are_refused(build):
    with pytest.raises(ValueError, match="use_adaptive_entropy .* and the callback of entropy_coef would both steer"):
        EntropyCallback(**PI).attach(build(plain=True, use_adaptive_entropy=True))


def test_trainer_of_the_package_is_refused(build):
    with pytest.raises(ValueError, match=r"set controllers=\{'entropy_coef': \{'law': 'pi'.* in its config instead"):
        EntropyCallback(**PI).attach(build())


def test_what_is_no_grpo_trainer_is_refused():
    with pytest.raises(
        TypeError, match=r"attach takes a GRPOTrainer, RLOOTrainer, GMPOTrainer or AsyncGRPOTrainer, got str"
    ):
        EntropyCallback(**PI).attach("trainer")


def test_second_trainer_is_refused(model_dir, dataset, tmp_path):
    callback = EntropyCallback(**PI).attach(build_trainer(model_dir, dataset, tmp_path, plain=True))
    with pytest.raises(ValueError, match="of entropy_coef is already attached: make one per trainer"):
        callback.attach(build_trainer(model_dir, dataset, tmp_path, plain=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "two callbacks have the knob 'entropy_coef'"),
        ({"knob": "epsilon_high", "name": "entropy_coef"}, "two callbacks have the name 'entropy_coef'"),
    ],
)
def test_two_callbacks_of_one_knob_or_name_are_refused(build, changes, message):
    trainer = build(plain=True, num_iterations=2)
    EntropyCallback(**PI).attach(trainer)
    with pytest.raises(ValueError, match=message):
        EntropyCallback(**{**PI, **changes}).attach(trainer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"law": "pie"}, r"unknown law in controllers\.entropy_coef 'pie'\. Did you mean 'pi'\?"),
        ({"kq": 1.0}, r"unknown setting of controllers\.entropy_coef 'kq'"),
        ({"target": 0.0}, r"controllers\.entropy_coef\.target must be > 0, got 0"),
        ({"target_ratio": 0.5}, r"set either target or target_ratio"),
    ],
)
def test_wrong_settings_are_refused(build, changes, message):
    with pytest.raises(ValueError, match=message):
        EntropyCallback(**{**PI, **changes}).attach(build(plain=True))


def test_missing_target_is_refused():
    with pytest.raises(ValueError, match=r"the pi law needs target \(nats\) or target_ratio \(share of the starting"):
        EntropyCallback(law="pi", knob="entropy_coef")


# The page


def test_python_of_the_page_runs(build):
    page = Path(__file__).parent.parent / "docs" / "controllers.md"
    law, *codes = blocks(page.read_text(), "python")
    assert len(codes) == 2
    exec(compile(law, page.name, "exec"), names := {"__name__": "my_package"})
    assert names["Doubling"](factor=1.5)(0.01, {}, Observation(1.0, 0.0, 0.0, 1)) == (0.015, {})
    plain, ours = build(plain=True), build()
    for code, trainer in zip(codes, (plain, ours), strict=True):
        exec(compile(code, page.name, "exec"), {"trainer": trainer})
    assert logged(plain, "knobs/entropy_coef") == [0.0] * 3  # entropy is above the target, and low is 0
    assert any(isinstance(callback, EntropyWatchdog) for callback in ours.callback_handler.callbacks)


@pytest.mark.parametrize("plain", [True, False])
def test_schedule_of_the_clip_range_goes_with_a_callback_that_logs(build, plain):
    class Logs(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.log({"mine": 1.0})

    spec = {"law": "constant", "knob": "epsilon_low", "value": 0.3}
    own = {} if plain else {"controllers": {"mine": spec}}
    trainer = build(plain=plain, num_iterations=2, callbacks=[], **own)
    trainer.callback_handler.callbacks.insert(0, Logs())
    if plain:
        EntropyCallback(**spec).attach(trainer)
    trainer.train()
    assert trainer.epsilon_low == 0.3


def told_of_authority(caplog, changes, turned=(), main=True, **knobs) -> int:
    """How often a controller tells of authority in 40 steps whose predicted changes are the same two."""
    read = dict(zip(PREDICTED, changes, strict=True)).get
    knobs = {"positive_advantage_coef": 1.0, "negative_advantage_coef": 1.0, "entropy_coef": 0.0, **knobs}
    built = build_controllers(
        {name: {"law": "constant", "knob": name, "value": 0.5} for name in turned},
        {knob.name: knob for knob in (*TRL_KNOBS, *rule_knobs({"": {"": Sign()}}).values())},
        knobs,
    )
    controller = EntropyController(built, knobs, read, lambda means: None, lambda: True, set)
    state = TrainerState(max_steps=40, num_train_epochs=1, is_world_process_zero=main)
    controller.on_train_begin(None, state, None)
    for state.global_step in range(1, 41):
        controller.on_step_end(None, state, None)
    return caplog.text.count(NO_AUTHORITY)


@pytest.mark.parametrize(
    ("changes", "given", "times"),
    [
        ((-0.2, -0.3), {"positive_advantage_coef": 0.5}, 1),
        ((-0.2, -0.3), {"turned": ["positive_advantage_coef"]}, 1),
        ((-0.2, -0.3), {"negative_advantage_coef": 1.5}, 1),
        ((-0.2, -0.3), {}, 0),
        ((-0.2, 0.3), {"positive_advantage_coef": 0.5}, 0),
        ((-0.2, -0.3), {"turned": ["positive_advantage_coef", "entropy_coef"]}, 0),
        ((-0.2, -0.3), {"positive_advantage_coef": 0.5, "main": False}, 0),
        ((-0.2, math.nan), {"positive_advantage_coef": 0.5}, 0),
        ((-0.2, None), {"positive_advantage_coef": 0.5}, 0),
    ],
)
def test_a_weight_on_one_sign_without_authority_is_told_once(caplog, changes, given, times):
    assert told_of_authority(caplog, changes, **given) == times
