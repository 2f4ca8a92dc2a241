"""The watchdog of entropy, on the package's trainer and on TRL's."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from toy import EntropyGiven, PlainGiven, logged
from transformers import TrainerCallback
from trl import RLOOTrainer

from trl_entropy import EntropyCallback, EntropyWatchdog
from trl_entropy._seam import lower_learning_rate
from trl_entropy.callbacks.watchdog import facts_of
from trl_entropy.control.advice import RunState


LN_22 = math.log(22)  # no entropy over 22 tokens is larger
both = pytest.mark.parametrize("plain", [False, True], ids=["package", "plain"])


class Scale(TrainerCallback):
    """After one optimizer step, multiply the output layer."""

    def __init__(self, after: int, by: float):
        self.after, self.by = after, by

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.after:
            with torch.no_grad():
                model.lm_head.weight.mul_(self.by)


class After(EntropyWatchdog):
    """A watchdog that is let look after one optimizer step."""

    def __init__(self, after: int, **settings):
        super().__init__(**settings)
        self.after = after

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step > self.after:
            super().on_step_end(args, state, control, **kwargs)


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.fixture
def watch(build):
    """Train on given completions under a watchdog: `watch(plain, watchdog, *other_callbacks, **arguments)`."""

    def make(plain, watchdog, *callbacks, resume=None, **arguments):
        settings = {"trainer_class": PlainGiven if plain else EntropyGiven, **arguments}
        trainer = build(plain=plain, callbacks=[watchdog, *callbacks], **settings)
        if plain:
            watchdog.attach(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return make


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "trl_entropy.callbacks.watchdog"]


# What it sees


@both
def test_healthy_run_is_left_alone(watch, tmp_path, caplog, plain):
    watchdog = EntropyWatchdog(floor=0.1, ceiling=LN_22, fall=0.9, window=1, action="stop")
    trainer = watch(plain, watchdog)
    assert trainer.state.global_step == 3
    assert watchdog.recent == pytest.approx(logged(trainer, "entropy")[1:], abs=1e-6)
    assert warnings(caplog) == []
    assert not list(tmp_path.glob("checkpoint-*"))


@both
def test_collapse_is_warned_about_once(watch, caplog, plain):
    # 50 times the logits leave next to no entropy from step 3 on
    trainer = watch(plain, EntropyWatchdog(floor=0.5), Scale(after=2, by=50.0), max_steps=5)
    entropies = logged(trainer, "entropy")
    assert min(entropies[:2]) > 0.5 > max(entropies[2:])
    (message,) = warnings(caplog)
    seen = f"the entropy was {entropies[2]:.4g} nats, below floor=0.5, at step 3"
    # one update per rollout batch: no token is clipped, so the clip range does nothing
    weight = "" if plain else "positive_advantage_coef or "
    advice = f"raise entropy_coef, lower {weight}learning_rate, or hold the entropy with a controller"
    assert message == f"{seen}: {advice}"
    assert trainer.state.global_step == 5


# Ratios leave a range as narrow as this at the second update of a rollout batch
CLIPPING = {"steps_per_generation": 2, "epsilon": 1e-6, "epsilon_high": 1e-6, "learning_rate": 0.01, "max_steps": 2}


@both
@pytest.mark.parametrize("logging_steps", [1, 10])
def test_clip_range_is_advised_only_where_it_clips(watch, caplog, plain, logging_steps):
    watch(plain, After(1, floor=4.0), **CLIPPING, logging_steps=logging_steps)
    (message,) = warnings(caplog)
    assert "raise entropy_coef or epsilon_high, lower epsilon (set epsilon_high too" in message


@both
@pytest.mark.parametrize("loss_type", ["cispo", "sapo", "vespo"])
def test_clip_range_is_not_advised_for_a_loss_that_has_none(watch, caplog, plain, loss_type):
    watch(plain, After(1, floor=4.0), **CLIPPING, loss_type=loss_type)
    (message,) = warnings(caplog)
    assert "raise entropy_coef, lower" in message
    assert "epsilon" not in message


def test_what_a_controller_turns_is_not_advised(watch, caplog):
    hold = {"law": "pi", "knob": "entropy_coef", "target": 0.5}
    watch(False, EntropyWatchdog(floor=4.0), controllers={"hold": hold})
    (message,) = warnings(caplog)
    assert message.split(": ")[1] == (
        "lower positive_advantage_coef or learning_rate, or give the controller of entropy_coef a wider range or "
        "larger gains, or turn another knob"
    )


def test_what_a_callback_or_trl_turns_is_not_advised(watch, build, caplog):
    trainer = build(plain=True, trainer_class=PlainGiven)
    EntropyCallback(law="pi", knob="entropy_coef", target=0.5).attach(trainer)
    EntropyWatchdog(floor=4.0).attach(trainer)
    trainer.train()
    watch(True, EntropyWatchdog(floor=4.0), use_adaptive_entropy=True)
    told = [message.split(": ")[1] for message in warnings(caplog)]
    wider = "give the controller of entropy_coef a wider range or larger gains, or turn another knob"
    assert told == [f"lower learning_rate, or {wider}"] * 2


def test_bonus_that_a_trainer_lacks_is_not_advised():
    class Rloo(RLOOTrainer):
        def __init__(self):
            self.epsilon_low = self.epsilon_high = 0.2
            self.callback_handler = SimpleNamespace(callbacks=[])
            self.state = SimpleNamespace(log_history=[{"clip_ratio/high_mean": 0.0}, {"clip_ratio/high_mean": 0.1}])
            self._metrics = {"train": {}}

    assert facts_of(Rloo()) == RunState({"epsilon_low": 0.2, "epsilon_high": 0.2}, set(), set(), {"epsilon_high"})


@both
def test_fall_is_seen_within_the_window(watch, caplog, plain):
    watchdog = EntropyWatchdog(fall=0.5, window=2)
    trainer = watch(plain, watchdog, Scale(after=3, by=50.0), max_steps=6)
    entropies = logged(trainer, "entropy")
    assert entropies[3] < 0.5 * entropies[1]
    (message,) = warnings(caplog)
    assert f"{entropies[3]:.4g} nats after {entropies[1]:.4g}, 2 steps before, so it fell by more than 0.5" in message
    assert "at step 4: raise entropy_coef" in message
    assert watchdog.recent == pytest.approx(entropies[3:], abs=1e-6)


def test_fall_is_not_seen_before_the_window_is_full(watch, caplog):
    watch(False, EntropyWatchdog(fall=0.5, window=5), Scale(after=1, by=50.0), max_steps=5)
    assert warnings(caplog) == []


@both
def test_explosion_is_warned_about(watch, caplog, plain):
    # logits of 0 give ln 22
    watchdog = EntropyWatchdog(ceiling=3.0, floor=0.1)
    trainer = watch(plain, watchdog, Scale(after=1, by=0.0), learning_rate=1e-6)
    assert logged(trainer, "entropy")[1:] == pytest.approx([LN_22] * 2, abs=1e-3)
    (message,) = warnings(caplog)
    assert message.startswith("the entropy was 3.091 nats, above ceiling=3, at step 2: lower ")
    assert "entropy_coef" not in message  # it is 0


@both
@pytest.mark.parametrize(("action", "steps"), [("warn", 4), ("lower_lr", 2), ("stop", 2)])
def test_entropy_that_is_not_finite_ends_the_run_unsaved(watch, tmp_path, caplog, plain, action, steps):
    # one rollout: the package would not sample from such a policy
    saving = {"save_strategy": "steps", "save_steps": 1, "steps_per_generation": 4}
    trainer = watch(plain, EntropyWatchdog(action=action), Scale(after=1, by=math.nan), max_steps=4, **saving)
    assert trainer.state.global_step == steps
    (message,) = warnings(caplog)
    assert message.startswith("the entropy was nan at step 2: the policy's logits are not finite: resume from")
    if action != "warn":
        assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def test_step_without_tokens_is_left_out(watch, caplog):
    class Truncating(PlainGiven):
        truncated_at = (1,)

    watchdog = EntropyWatchdog(floor=0.5, fall=0.5, window=1)
    trainer = watch(True, watchdog, trainer_class=Truncating, mask_truncated_completions=True)
    assert logged(trainer, "entropy")[1] == 0.0
    assert warnings(caplog) == []
    assert len(watchdog.recent) == 2


# What it does


@both
def test_stop_saves_and_ends_the_run(watch, tmp_path, caplog, plain):
    trainer = watch(plain, EntropyWatchdog(floor=0.5, action="stop"), Scale(after=2, by=50.0), max_steps=6)
    assert trainer.state.global_step == 3
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert warnings(caplog)[0].endswith(". The run stops")


@both
def test_learning_rate_is_lowered_once_in_a_window(watch, caplog, plain):
    # all entropies are below 4; steps 1, 3 and 5 act, and TRL logs the rate with which a step was done
    watchdog = EntropyWatchdog(floor=4.0, window=2, action="lower_lr", factor=0.5)
    trainer = watch(plain, watchdog, max_steps=6, learning_rate=0.008)
    assert logged(trainer, "learning_rate") == pytest.approx([0.008, 0.004, 0.004, 0.002, 0.002, 0.001], abs=1e-12)
    assert [message.split(". The")[1] for message in warnings(caplog)] == [
        f" learning rate is now {rate}" for rate in ("0.004", "0.002", "0.001")
    ]


def test_two_kinds_lower_the_learning_rate_each_for_itself(watch):
    # a collapse at every step; a fall at step 3, to which 50 times the logits lead
    watchdog = EntropyWatchdog(floor=4.0, fall=0.5, window=2, action="lower_lr", factor=0.5)
    trainer = watch(False, watchdog, Scale(after=2, by=50.0), max_steps=4, learning_rate=0.008)
    # after step 1: collapse; after step 3: collapse and fall
    assert logged(trainer, "learning_rate") == pytest.approx([0.008, 0.004, 0.004, 0.001], abs=1e-12)


def test_schedule_goes_on_from_the_lowered_rate(watch):
    # linear from 0.008 to 0 in 4 steps: 0.008, 0.006, 0.004, 0.002; halved from step 2 on
    settings = {"max_steps": 4, "learning_rate": 0.008, "lr_scheduler_type": "linear"}
    trainer = watch(False, EntropyWatchdog(floor=4.0, action="lower_lr"), **settings)
    assert logged(trainer, "learning_rate") == pytest.approx([0.008, 0.003, 0.002, 0.001], abs=1e-12)


def test_all_parameter_groups_are_lowered():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 0.5}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    assert lower_learning_rate(optimizer, scheduler, 0.25) == [0.25, 0.125]
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.125, 0.0625]


def test_scheduler_without_base_rates_goes_on_from_the_groups():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    lower_learning_rate(optimizer, scheduler, 0.5)
    for _ in range(2):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05, abs=1e-12)


# Where it is added


def test_watchdog_added_later_is_attached_by_the_trainer_of_the_package(build, caplog):
    trainer = build(trainer_class=EntropyGiven)
    trainer.add_callback(EntropyWatchdog(floor=4.0))
    trainer.train()
    assert len(warnings(caplog)) == 1


def test_attach_adds_it_to_a_plain_trainer(build, caplog):
    trainer = build(plain=True, trainer_class=PlainGiven)
    watchdog = EntropyWatchdog(floor=4.0)
    assert watchdog.attach(trainer) is watchdog
    trainer.train()
    assert trainer.callback_handler.callbacks.count(watchdog) == 1
    assert len(warnings(caplog)) == 1


def test_package_gives_it_the_mean_over_all_tokens_of_the_step(watch):
    watchdog = EntropyWatchdog()
    trainer = watch(False, watchdog, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    assert watchdog.recent[-1] == trainer.step_entropy()
    # where micro-batches hold different numbers of tokens, TRL's mean of means is another number
    others = logged(trainer, "entropy")
    assert watchdog.recent == pytest.approx(others, abs=0.1)
    assert max(abs(a - b) for a, b in zip(watchdog.recent, others, strict=True)) > 1e-4


def test_watchdog_without_a_trainer_is_refused(run):
    with pytest.raises(
        ValueError, match=r"EntropyWatchdog is not attached to a trainer: call attach\(trainer\) before"
    ):
        run(plain=True, callbacks=[EntropyWatchdog()])


def test_what_is_no_grpo_trainer_is_refused():
    with pytest.raises(
        TypeError, match=r"attach takes a GRPOTrainer, RLOOTrainer, GMPOTrainer or AsyncGRPOTrainer, got str"
    ):
        EntropyWatchdog().attach("trainer")


def test_a_second_run_starts_afresh(watch, caplog):
    watchdog = EntropyWatchdog(floor=4.0)
    trainer = watch(False, watchdog)
    trainer.train()
    assert len(warnings(caplog)) == 2
    assert len(watchdog.recent) == 3


# Checkpoints


STEPS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "learning_rate": 0.008}


@both
@pytest.mark.parametrize("restore", [False, True])
def test_resumed_run_is_the_uninterrupted_one(watch, tmp_path, plain, restore):
    def watchdog():
        return EntropyWatchdog(floor=4.0, fall=0.5, window=4, action="lower_lr")

    settings = {**STEPS, "restore_callback_states_from_checkpoint": restore}
    whole = watch(plain, watchdog(), Scale(after=3, by=50.0), output_dir=tmp_path / "whole", **settings)
    # collapse after step 1 and 5, fall after step 5
    assert logged(whole, "learning_rate") == pytest.approx([0.008, *[0.004] * 4, 0.001], abs=1e-12)
    parts = tmp_path / "parts"
    watch(plain, watchdog(), Scale(after=3, by=50.0), StopAt(3), output_dir=parts, **settings)
    state = json.loads((parts / "checkpoint-3" / "trainer_state.json").read_text())["stateful_callbacks"]
    (key,) = (key for key in state if key.startswith("EntropyWatchdog"))
    assert state[key]["acted"] == {"collapse": 1}
    second = watchdog()
    resumed = watch(plain, second, output_dir=parts, resume=str(parts / "checkpoint-3"), **settings)
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")
    assert second.acted == {"collapse": 5, "fall": 5}


def test_damaged_state_is_refused(build):
    watchdog = EntropyWatchdog(floor=0.5).attach(build(plain=True))
    state = SimpleNamespace(stateful_callbacks={watchdog._key: {"recent": [], "acted": {"fall": "1"}}})
    with pytest.raises(ValueError, match=r"of the checkpoint is damaged \(acted\.fall is str, not int\): resume from"):
        watchdog.on_train_begin(None, state, None)


def test_warning_of_before_the_checkpoint_is_not_repeated(watch, tmp_path, caplog):
    watch(False, EntropyWatchdog(floor=4.0), StopAt(3), **STEPS)
    assert len(warnings(caplog)) == 1
    watch(False, EntropyWatchdog(floor=4.0), resume=str(tmp_path / "checkpoint-3"), **STEPS)
    assert len(warnings(caplog)) == 1


def test_checkpoint_written_without_it_is_continued(watch, run, tmp_path, caplog):
    run(trainer_class=EntropyGiven, **{**STEPS, "max_steps": 3})
    watchdog = EntropyWatchdog(floor=4.0)
    watch(False, watchdog, resume=str(tmp_path / "checkpoint-3"), **STEPS)
    assert watchdog.acted == {"collapse": 4}


# Refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": -0.1}, r"floor must be a number >= 0, got -0\.1"),
        ({"ceiling": "3"}, r"ceiling must be a number >= 0, got '3'"),
        ({"floor": 1.0, "ceiling": 1.0}, r"floor must be below ceiling, got floor=1, ceiling=1"),
        ({"fall": 1.5}, r"fall must be a number >= 0 and <= 1, got 1\.5"),
        ({"fall": 0.0}, r"fall must be > 0 and < 1, got 0"),
        ({"factor": 1.0}, r"factor must be > 0 and < 1, got 1"),
        ({"factor": None}, r"factor must be a number >= 0 and <= 1, got None"),
        ({"window": 0}, r"window must be a whole number >= 1, got 0"),
        ({"window": 2.0}, r"window must be a whole number >= 1, got 2\.0"),
        ({"action": "halt"}, r"unknown action 'halt'\. Available: lower_lr, stop, warn"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EntropyWatchdog(**settings)


def test_only_the_first_process_warns(watch, caplog):

    class Elsewhere(EntropyWatchdog):
        def on_step_end(self, args, state, control, **kwargs):
            state.is_world_process_zero = False
            super().on_step_end(args, state, control, **kwargs)
            state.is_world_process_zero = True

    watchdog = Elsewhere(floor=4.0)
    watch(False, watchdog)
    assert watchdog.acted == {"collapse": 1}
    assert warnings(caplog) == []
