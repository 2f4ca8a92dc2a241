import json
import math

import pytest

from trl_entropy.control.controller import Controller, build_controllers
from trl_entropy.control.knobs import TRAINER_KNOBS, Knob
from trl_entropy.control.laws import LAWS, PI, BangBang, Epoch, Integral, Ratchet, Schedule
from trl_entropy.control.laws.schedule import constant, stage
from trl_entropy.control.signals import SIGNALS
from trl_entropy.control.targets import Target, build_target


KNOBS = {
    "up": Knob("up", low=-1.0, high=1.0, raises_entropy=True, default=0.0),
    "down": Knob("down", low=-1.0, high=1.0, raises_entropy=False, default=0.0),
    "unknown": Knob("unknown", low=0.0, high=math.inf, raises_entropy=None, default=0.5),
}
VALUES = {name: knob.default for name, knob in KNOBS.items()}


def point(value: float) -> Target:
    return Target(value, value)


def share(value: float, start_steps: int = 1) -> Target:
    return Target(value, value, is_ratio=True, start_steps=start_steps)


def controller(law, raises=True, **changes) -> Controller:
    knob = KNOBS["up" if raises else "down"]
    settings = {"low": knob.low, "high": knob.high, "value": 0.0, "target": point(1.0), **changes}
    return Controller("mine", law, knob, raises, **settings)


def build(spec: dict, values: dict | None = None, **targets) -> Controller:
    (built,) = build_controllers({"mine": spec}, KNOBS, VALUES | (values or {}), **({"target": 1.0} | targets))
    return built


def follow(c: Controller, entropies: list[float]) -> list[float]:
    values = []
    for entropy in entropies:
        c.update(entropy, progress=0.0, epoch=0.0, num_epochs=1)
        values.append(c.value)
    return values


# One law on one knob


def test_knob_that_raises_entropy_goes_up_below_the_target():
    # step 0.25, target 1: below, above, at the target (goes up)
    assert follow(controller(BangBang(0.25)), [0.5, 2.0, 1.0]) == [0.25, 0.0, 0.25]


def test_knob_that_lowers_entropy_goes_up_above_the_target():
    assert follow(controller(BangBang(0.25), raises=False), [2.0, 0.5, 1.0]) == [0.25, 0.0, 0.25]


def test_error_is_positive_where_a_larger_value_is_asked_for():
    up, down = controller(PI()), controller(PI(), raises=False)
    follow(up, [0.75])
    follow(down, [0.75])
    assert (up.error, down.error) == (0.25, -0.25)


def test_pi_on_entropy_is_the_formula_of_the_paper():
    # alpha = kp (H - H*) + ki sum of the earlier (H - H*), clipped to [-1, 1], on a knob that lowers entropy:
    # errors 0.5, -1, 3 with kp = 0.5 and ki = 0.1: 0.25; -0.5 + 0.05 = -0.45; 1.5 + 0.1 * -0.5 = 1.45 -> 1
    values = follow(controller(PI(kp=0.5, ki=0.1), raises=False), [1.5, 0.0, 4.0])
    assert values == pytest.approx([0.25, -0.45, 1.0], abs=1e-12)


def test_value_is_clipped_and_comes_back_by_whole_steps():
    c = controller(BangBang(0.75), low=-0.5, high=0.5)
    assert follow(c, [0.0, 0.0, 2.0, 2.0, 0.0]) == [0.5, 0.5, -0.25, -0.5, 0.25]


def test_share_of_the_starting_entropy_is_resolved_at_the_first_step():
    c = controller(BangBang(0.25), target=share(0.5))
    # the first step measures 3, so the target is 1.5: 3 and 1.6 are above it, 1.4 is below
    assert follow(c, [3.0, 1.6, 1.4]) == [-0.25, -0.5, -0.25]
    assert c.metrics() == {
        "controllers/mine/target": 1.5,
        "controllers/mine/error": pytest.approx(0.1),
        "controllers/mine/start": 3.0,
    }


def test_starting_entropy_is_the_mean_of_the_first_steps_and_the_knob_rests_until_then():
    # (3 + 2 + 1) / 3 = 2, times 0.75: 1.5; the third step is below it, the fourth above
    c = controller(BangBang(0.25), target=share(0.75, start_steps=3))
    assert follow(c, [3.0, 2.0]) == [0.0, 0.0]
    assert c.metrics() == {}
    assert follow(c, [1.0, 9.0]) == [0.25, 0.0]
    assert c.target.start == 2.0


def test_knob_rests_inside_of_a_band():
    # below 1 up, inside nothing, above 2 down; the error is the distance to the band
    c = controller(BangBang(0.25), target=Target(1.0, 2.0))
    assert follow(c, [0.5, 1.0, 1.5, 2.0, 2.5]) == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert c.error == -0.5
    follow(c, [1.5])
    assert (c.current_target, c.error) == (1.5, 0.0)


def test_band_leaves_the_sum_of_errors_alone():
    c = controller(PI(kp=0.5, ki=0.25), target=Target(1.0, 2.0))
    assert follow(c, [0.5, 1.5, 0.5]) == [0.25, 0.25, 0.375]  # 0.5 * 0.5; rest; 0.25 + 0.25 * 0.5


def test_target_may_move_over_the_run():
    # from 2 to 1 over the first half: 1.5 at a quarter, 1 from the half on
    c = controller(PI(kp=1.0, ki=0.0), target=Target(*[Schedule(2.0, 1.0, finish=0.5)] * 2))
    errors = []
    for progress in (0.25, 0.5, 1.0):
        c.update(1.25, progress, 0.0, 1)
        errors.append(c.error)
    assert errors == [0.25, -0.25, -0.25]


def test_share_may_move_too():
    c = controller(PI(), target=Target(*[Schedule(1.0, 0.5)] * 2, is_ratio=True, start_steps=1))
    c.update(2.0, 0.0, 0.0, 1)
    c.update(2.0, 1.0, 0.0, 1)
    assert c.current_target == 1.0


def test_rollout_cadence_decides_once_from_the_mean():
    # target 1: mean (0 + 3) / 2 is above, mean (0 + 1) / 2 below; a step without an entropy does not count
    c = controller(BangBang(0.25), cadence="rollout")
    values = []
    for entropy, ends in ((0.0, False), (3.0, True), (0.0, False), (None, False), (1.0, True), (None, True)):
        c.update(entropy, 0.0, 0.0, 1, rollout_ends=ends)
        values.append(c.value)
    assert values == [0.0, -0.25, -0.25, -0.25, 0.0, 0.0]
    assert c.error == 0.5


def test_anti_windup_lets_a_knob_leave_its_bound_at_once():
    # 50 steps at entropy 3, errors of -2 on [-1, 1] with kp = ki = 0.2: the sum stops at -4, where -0.4 - 0.8 = -1.2
    # is below; then errors of 0.5 give 0.1 - 0.8 and 0.1 - 0.7. Without it the sum is -100 and holds the knob at -1.
    entropies = [3.0] * 50 + [0.5] * 2
    kept = follow(controller(PI(kp=0.2, ki=0.2)), entropies)
    clamped = follow(controller(PI(kp=0.2, ki=0.2, anti_windup=True)), entropies)
    assert kept[-3:] == [-1.0, -1.0, -1.0]
    assert clamped[-3:] == pytest.approx([-1.0, -0.7, -0.6], abs=1e-12)


SMOOTH = PI(kp=0.5, ki=0.1, kd=0.2, smoothing=0.5, slew=0.1)


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize(("law", "tolerance"), [(BangBang(0.05), 0.06), (PI(kp=0.5, ki=0.1), 1e-3), (SMOOTH, 1e-3)])
def test_toy_plant_reaches_its_target(law, tolerance, raises):
    # entropy follows the knob with a lag and a leak to 0.4: without control it settles at 0.4, the target is 1
    c = controller(law, raises=raises)
    sign = 1.0 if raises else -1.0
    entropy, seen = 2.0, []
    for _ in range(600):
        entropy += 0.3 * (0.4 + sign * c.value - entropy)
        c.update(entropy, 0.0, 0.0, 1)
        assert c.low <= c.value <= c.high
        seen.append(entropy)
    assert sum(seen[-100:]) / 100 == pytest.approx(1.0, abs=tolerance)


def test_toy_plant_with_the_wrong_direction_does_not_reach_its_target():
    c, entropy = controller(BangBang(0.05)), 2.0
    for _ in range(600):
        entropy += 0.3 * (0.4 - c.value - entropy)
        c.update(entropy, 0.0, 0.0, 1)
    assert abs(entropy - 1.0) > 0.5


def test_schedules_have_their_first_value_from_the_start():
    for law in (stage(), Epoch(), constant(), Schedule()):
        c = controller(law, value=1.0, target=None)
        c.start(num_epochs=4)
        assert c.value == 0.0


def test_constant_is_clipped_to_the_range():
    c = controller(constant(9.0), target=None)
    c.start(num_epochs=1)
    assert c.value == c.high == 1.0


def test_ratchet_on_a_knob_that_lowers_entropy_goes_up_above_the_target():
    # target 1, factor 2, at most 1: above twice, at the target, below
    c = controller(Ratchet(), raises=False, value=0.5)
    assert follow(c, [2.0, 2.0, 1.0, 0.5]) == [1.0, 1.0, 1.0, 0.5]


def test_slew_is_from_the_clipped_value():
    # wanted -4 and then 4 on [-1, 1], at most 0.75 a step: -0.75, -1.5 -> -1, then up from -1
    c = controller(PI(kp=4.0, ki=0.0, slew=0.75))
    assert follow(c, [2.0, 2.0, 0.0, 0.0]) == [-0.75, -1.0, -0.25, 0.5]


def test_laws_with_a_target_start_where_they_are_set():
    c = controller(BangBang(0.25), value=0.5)
    c.start(num_epochs=4)
    assert (c.value, c.error) == (0.5, None)


@pytest.mark.parametrize("target", [lambda: point(1.0), lambda: share(0.9, start_steps=2)])
def test_a_second_start_begins_anew(target):
    c = controller(EVERY_OPTION, value=0.25, target=target())
    entropies = [2.0, 0.3, 1.7, 0.1, 0.9]
    c.start(1)
    first = follow(c, entropies)
    c.start(1)
    assert (c.value, c.metrics()) == (0.25, {})
    assert follow(c, entropies) == first
    assert len(set(first)) > 2


def test_a_second_start_brings_a_schedule_to_its_first_value():
    c = controller(stage(), value=1.0, target=None)
    c.start(1)
    c.update(None, progress=0.75, epoch=0.0, num_epochs=1)
    assert c.value == 0.5
    c.start(1)
    assert c.value == 0.0


def test_schedule_needs_no_entropy():
    c = controller(Epoch(), value=1.0, target=None)
    c.update(None, progress=0.1, epoch=1.0, num_epochs=3)
    assert (c.value, c.error) == (0.5, None)


def test_epoch_schedule_of_one_epoch_is_refused_at_the_start():
    with pytest.raises(ValueError, match="needs a run of 2 epochs or more, got 1"):
        controller(Epoch(), target=None).start(num_epochs=1)


# State


EVERY_OPTION = PI(kp=0.3, ki=0.2, kd=0.15, dead_band=0.05, smoothing=0.7, slew=0.3, anti_windup=True)


@pytest.mark.parametrize(
    "law", [BangBang(0.1), BangBang(0.1, otherwise=0.0), Integral(0.3), PI(kp=0.3, ki=0.2), EVERY_OPTION, Ratchet(1.5)]
)
@pytest.mark.parametrize("target", [lambda: point(1.0), lambda: share(0.3, start_steps=4), lambda: Target(0.8, 1.0)])
@pytest.mark.parametrize("cadence", ["step", "rollout"])
def test_state_through_json_continues_identically(law, target, cadence):
    # the checkpoint is within a rollout batch, and for a share within the measurement of the start
    entropies = [2.0, 0.3, 1.7, 0.1, 0.9, 1.1, 0.2, 3.0]
    ends = [False, False, False, True] * 2 if cadence == "rollout" else [True] * 8
    settings = {"cadence": cadence}

    def run(c: Controller, places: range) -> list[float]:
        values = []
        for k in places:
            c.update(entropies[k], 0.0, 0.0, 1, ends[k])
            values.append(c.value)
        return values

    whole = run(controller(law, value=0.1, target=target(), **settings), range(8))
    first = controller(law, value=0.1, target=target(), **settings)
    values = run(first, range(3))
    second = controller(law, target=target(), **settings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert values + run(second, range(3, 8)) == whole
    assert len(set(whole)) > 1


def test_state_does_not_change_with_the_controller():
    c = controller(PI())
    follow(c, [2.0])
    state = c.state_dict()
    kept = json.dumps(state)
    follow(c, [3.0])
    assert json.dumps(state) == kept
    assert state["memory"] == {"sum": -1.0, "average": -1.0}


def test_state_of_a_schedule_through_json_keeps_its_value():
    first = controller(stage(), value=1.0, target=None)
    first.start(1)
    first.update(None, progress=0.75, epoch=0.0, num_epochs=1)
    second = controller(stage(), value=1.0, target=None)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.value == 0.5


def test_target_in_nats_is_that_of_the_new_run():
    state = controller(BangBang(), target=point(1.0)).state_dict()
    c = controller(BangBang(), target=point(2.0))
    c.load_state_dict(state)
    assert c.target == point(2.0)


def test_state_of_another_knob_or_signal_is_refused():
    state = controller(BangBang(), raises=False).state_dict()
    message = "'mine' turns up by entropy, but in the checkpoint it turned {} by {}: resume with the same"
    with pytest.raises(ValueError, match=message.format("down", "entropy")):
        controller(BangBang()).load_state_dict(state)
    state = controller(BangBang(), signal="reward").state_dict()
    with pytest.raises(ValueError, match=message.format("up", "reward")):
        controller(BangBang()).load_state_dict(state)


# In words


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            {"law": "bang_bang", "knob": "entropy_coef", "target": 0.2, "initial": 0.1, "low": 0.0, "high": 0.5},
            "bang_bang turns entropy_coef in [0, 0.5], from 0.1, to hold entropy at 0.2 nats",
        ),
        (
            {"law": "pi", "knob": "temperature", "target": [0.25, 0.35], "cadence": "rollout"},
            "pi turns temperature in [0.01, inf], from 1, to hold entropy at 0.25 to 0.35 nats, "
            "once per rollout batch",
        ),
        (
            {"law": "pi", "knob": "epsilon_high", "target_ratio": {"start": 1.0, "end": 0.4}, "start_steps": 3},
            "pi turns epsilon_high in [0, inf], from 0.2, to hold entropy at 1 moving to 0.4 of its start, "
            "the mean of optimizer steps 1 to 3",
        ),
        (
            {"law": "pi", "knob": "epsilon_low", "target": 0.5, "signal": "reward", "raises_signal": True},
            "pi turns epsilon_low in [0, 1], from 0.2, to hold reward at 0.5",
        ),
        ({"law": "epoch", "knob": "entropy_coef"}, "epoch turns entropy_coef in [-inf, inf]"),
        (
            {"law": "switch", "knob": "epsilon_low", "before": 0.3, "after": 0.2, "high": 0.5},
            "schedule (start 0.3, end 0.2, begin 0.5, finish 0.5, shape linear) turns epsilon_low in [0, 0.5]",
        ),
    ],
)
def test_controller_in_words(spec, line):
    values = {knob.name: knob.default for knob in TRAINER_KNOBS}
    (made,) = build_controllers({"mine": spec}, {knob.name: knob for knob in TRAINER_KNOBS}, values)
    assert str(made) == f"mine: {line}"


# Resumed with other settings


def resumed(first: Controller, second: Controller) -> Controller:
    second.load_state_dict(json.loads(json.dumps(first.state_dict())), "x.json")
    return second


@pytest.mark.parametrize(("share", "told"), [(0.5, False), (50.0, True)])
def test_share_that_looks_like_a_percentage_is_told(caplog, share, told):
    build_target("target_ratio", share, True, 1, positive=True)
    said = "target_ratio=50 is 50 times the start, and 1 is the start itself: 0.5 is a half"
    assert (said in caplog.messages) is told


@pytest.mark.parametrize("start_steps", [1, 3, 6])
def test_start_that_is_known_stays_the_start(start_steps, caplog):
    # (3 + 2 + 1) / 3 = 2
    first = controller(BangBang(0.25), target=share(0.5, start_steps=3))
    follow(first, [3.0, 2.0, 1.0, 0.5])
    second = resumed(first, controller(BangBang(0.25), target=share(0.5, start_steps=start_steps)))
    follow(second, [0.25])
    assert (second.target.start, second.current_target) == (2.0, 1.0)
    told = f"start_steps={start_steps} has no effect: the start was measured over the first 3 steps" in caplog.text
    assert told is (start_steps != 3)


@pytest.mark.parametrize(("start_steps", "start"), [(1, 2.5), (2, 2.5), (4, 1.5)])
def test_start_that_is_not_known_yet_is_measured_as_it_is_set(start_steps, start):
    # two of ten steps are measured; a smaller number is reached, a larger one goes on: (3 + 2 + 1 + 0) / 4
    first = controller(BangBang(0.25), target=share(0.5, start_steps=10))
    follow(first, [3.0, 2.0])
    second = resumed(first, controller(BangBang(0.25), target=share(0.5, start_steps=start_steps)))
    follow(second, [1.0, 0.0])
    assert second.target.start == start


def test_state_without_the_mark_that_its_start_is_known_is_read():
    state = controller(BangBang(0.25), target=share(0.5)).state_dict()
    state["target"] = {"measured": 2, "total": 4.0}
    c = controller(BangBang(0.25), target=share(0.5, start_steps=2))
    c.load_state_dict(state)
    assert c.target.start == 2.0


def test_law_with_a_target_goes_on_from_a_schedule():
    schedule = controller(constant(0.5), target=None)
    schedule.start(1)
    assert follow(resumed(schedule, controller(PI(kp=0.5, ki=0.0))), [0.5, 0.75]) == [0.25, 0.125]
    assert follow(resumed(schedule, controller(BangBang(0.25))), [0.5]) == [0.75]
    # and a schedule from a law with a target, whatever its signal
    steered = controller(BangBang(0.25), signal="reward", value=0.25)
    assert resumed(steered, controller(constant(0.5), target=None)).value == 0.25


def test_share_of_a_start_that_the_checkpoint_does_not_have_is_refused():
    for first in (controller(constant(0.5), target=None), controller(PI(), target=point(1.0))):
        with pytest.raises(ValueError, match=r"controllers\.mine of x\.json has no starting signal.*: set target"):
            resumed(first, controller(PI(), target=share(0.5)))


def test_value_out_of_the_new_range_is_clipped_into_it():
    first = controller(BangBang(0.25), value=0.125)
    assert resumed(first, controller(BangBang(0.25), low=0.5, value=0.5)).value == 0.5


def test_ratchet_does_not_go_on_from_0():
    with pytest.raises(ValueError, match="the knob must start above 0, got 0"):
        resumed(controller(BangBang(0.25)), controller(Ratchet(), value=0.5))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"value": None}, r"controllers\.mine\.value is NoneType, not float"),
        ({"memory": []}, r"controllers\.mine\.memory is list, not dict"),
        ({"total": "0"}, r"controllers\.mine\.total is str, not float"),
        ({"target": 1.0}, r"controllers\.mine\.target is float, not dict"),
        ({"target": {"measured": 1}}, r"it has no total"),
    ],
)
def test_damaged_state_is_refused(changes, why):
    state = controller(PI(), target=share(0.5)).state_dict() | changes
    with pytest.raises(ValueError, match=rf"x\.json is damaged \({why}\): resume from another checkpoint"):
        controller(PI(), target=share(0.5)).load_state_dict(state, "x.json")


# From the config's mapping


def test_controller_by_hand():
    c = build({"law": "pi", "knob": "down", "kp": 2.0, "low": -0.5, "initial": 0.25, "target": 0.3})
    assert (c.name, c.law, c.knob, c.raises_signal) == ("mine", PI(kp=2.0, ki=0.01), KNOBS["down"], False)
    assert (c.low, c.high, c.value, c.target) == (-0.5, 1.0, 0.25, point(0.3))
    assert (c.signal, c.cadence) == ("entropy", "step")


def test_direction_of_the_knob_can_be_given():
    assert build({"law": "pi", "knob": "unknown", "raises_signal": False}).raises_signal is False
    assert build({"law": "pi", "knob": "down", "raises_signal": True}).raises_signal is True


def test_schedule_needs_no_direction_and_no_target():
    assert build({"law": "stage", "knob": "unknown"}, target=None).target is None


def test_target_of_the_config_is_taken_where_none_is_given():
    def target(targets: dict, **spec) -> Target:
        return build({"law": "pi", "knob": "up", **spec}, **targets).target

    assert target({"target": 0.7}) == point(0.7)
    assert target({"target": 0.7, "target_ratio": 0.4}) == share(0.4, start_steps=5)
    assert target({"target": 0.7, "target_ratio": 0.4}, target=0.1) == point(0.1)
    assert target({"target": 0.7}, target_ratio=0.9, start_steps=2) == share(0.9, start_steps=2)


def test_target_may_be_a_band_or_a_schedule():
    assert build({"law": "pi", "knob": "up", "target": [0.2, 0.4]}).target == Target(0.2, 0.4)
    moving = Schedule(0.6, 0.3, finish=0.5, shape="cosine")
    spec = {"start": 0.6, "end": 0.3, "finish": 0.5, "shape": "cosine"}
    assert build({"law": "pi", "knob": "up", "target": spec}).target == Target(moving, moving)
    shares = build({"law": "pi", "knob": "up", "target_ratio": [0.5, 0.6]}).target
    assert shares == Target(0.5, 0.6, is_ratio=True, start_steps=5)


def test_direction_of_an_entropy_is_that_of_the_knob():
    for signal in (signal for signal in SIGNALS if signal.startswith("entropy")):
        assert build({"law": "pi", "knob": "down", "signal": signal}).raises_signal is False
    signals = ["entropy/token_weights.high_entropy"]
    (c,) = build_controllers(
        {"mine": {"law": "pi", "knob": "up", "signal": signals[0]}}, KNOBS, VALUES, target=1.0, signals=signals
    )
    assert (c.signal, c.raises_signal) == (signals[0], True)


def test_temperature_has_no_known_effect_on_the_entropy_at_temperature_1():
    knob = next(knob for knob in TRAINER_KNOBS if knob.name == "temperature")
    specs = {"mine": {"law": "pi", "knob": "temperature", "signal": "entropy/temperature_1"}}
    with pytest.raises(ValueError, match="whether a larger temperature raises or lowers entropy/temperature_1; set"):
        build_controllers(specs, {"temperature": knob}, {"temperature": 1.0}, target=1.0)
    specs["mine"]["signal"] = "entropy"
    (c,) = build_controllers(specs, {"temperature": knob}, {"temperature": 1.0}, target=1.0)
    assert c.raises_signal is True


def test_signal_that_is_no_entropy_takes_any_target():
    spec = {"law": "pi", "knob": "up", "signal": "reward", "raises_signal": False, "target": -0.5}
    assert build(spec).target == point(-0.5)


def test_value_of_the_config_is_where_the_law_starts():
    assert build({"law": "bang_bang", "knob": "up"}, values={"up": 0.5}).value == 0.5
    assert build({"law": "bang_bang", "knob": "up", "initial": 0.5}, values={"up": 0.5}).value == 0.5


def test_no_specification_gives_no_controller():
    assert build_controllers({}, KNOBS, VALUES) == []


def test_every_law_of_the_catalogue_can_be_named():
    for name, law in LAWS.items():
        initial = {"initial": 0.5} if law().uses_target else {}
        assert build({"law": name, "knob": "up", **initial}).law == law()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pi", r"controllers\.mine must be a mapping with law and knob, got 'pi'"),
        ({"knob": "up"}, r"controllers\.mine has no law; available: bang_bang, constant, epoch, integral, pi"),
        ({"law": "pi"}, r"controllers\.mine has no knob; available: up, down, unknown"),
        (
            {"law": "bangbang", "knob": "up"},
            r"unknown law in controllers\.mine 'bangbang'\. Did you mean 'bang_bang'\?",
        ),
        ({"law": "pi", "knob": "dwn"}, r"unknown knob in controllers\.mine 'dwn'\. Did you mean 'down'\?"),
        ({"law": "pi", "knob": "up", "kq": 1}, r"unknown setting of controllers\.mine 'kq'\. Available"),
        ({"law": "bang_bang", "knob": "up", "kp": 1}, r"unknown setting of controllers\.mine 'kp'"),
        ({"law": "pi", "knob": "up", "kp": -1}, r"kp must be a number >= 0, got -1 \(in controllers\.mine\)"),
        ({"law": "pi", "knob": "up", "low": -2}, r"controllers\.mine\.low must be a number >= -1 and <= 1, got -2"),
        ({"law": "pi", "knob": "up", "high": 2}, r"controllers\.mine\.high must be a number >= -1 and <= 1, got 2"),
        ({"law": "pi", "knob": "up", "low": 0.5, "high": 0.5}, r"low must be below high, got low=0\.5, high=0\.5"),
        ({"law": "pi", "knob": "unknown"}, r"whether a larger unknown raises or lowers entropy; set raises_signal"),
        ({"law": "pi", "knob": "up", "raises_signal": "yes"}, r"set raises_signal to true or false, got 'yes'"),
        (
            {"law": "pi", "knob": "up", "raises_entropy": True},
            r"unknown setting .*'raises_entropy'\. .* raises_signal",
        ),
        ({"law": "pi", "knob": "up", "signal": "entrop"}, r"unknown signal in .* Did you mean 'entropy'\?"),
        ({"law": "pi", "knob": "up", "cadence": "rolout"}, r"unknown cadence in .* Did you mean 'rollout'\?"),
        ({"law": "pi", "knob": "up", "signal": "reward", "target": 1}, r"raises or lowers reward; set raises_signal"),
        (
            {"law": "pi", "knob": "up", "signal": "reward", "raises_signal": True},
            r"the signal reward needs a target in the controller: entropy_target is in nats",
        ),
        ({"law": "pi", "knob": "up", "target": [0.2]}, r"target must be a number, a band \[low, high\] or {start"),
        ({"law": "pi", "knob": "up", "target": [0.4, 0.2]}, r"a band is \[low, high\] with low < high, got \[0\.4"),
        ({"law": "pi", "knob": "up", "target": [0.0, 0.2]}, r"controllers\.mine\.target\[0\] must be > 0, got 0"),
        (
            {"law": "pi", "knob": "up", "target": {"start": 0.2}},
            r"controllers\.mine\.target has no end: a moving target",
        ),
        ({"law": "pi", "knob": "up", "target": {"start": 0.2, "end": 0}}, r"mine\.target\.end must be > 0, got 0"),
        (
            {"law": "pi", "knob": "up", "target": {"start": 0.2, "end": 0.1, "stop": 1}},
            r"unknown parameter of controllers\.mine\.target 'stop'",
        ),
        (
            {"law": "pi", "knob": "up", "target": 0.2, "start_steps": 3},
            r"start_steps only applies to a target_ratio: drop it",
        ),
        (
            {"law": "pi", "knob": "up", "target_ratio": 0.2, "start_steps": 0},
            r"controllers\.mine\.start_steps must be a whole number >= 1, got 0",
        ),
        ({"law": "stage", "knob": "up", "cadence": "rollout"}, r"stage law is a schedule and takes no cadence"),
        (
            {"law": "ratchet", "knob": "up"},
            r"must start above 0, got 0: set initial and low to values above 0, or set least \(in controllers\.mine\)",
        ),
        ({"law": "constant", "knob": "up", "initial": 0.5}, r"the constant law is a schedule and takes no initial"),
        ({"law": "stage", "knob": "up", "initial": 0.5}, r"the stage law is a schedule and takes no initial"),
        ({"law": "stage", "knob": "up", "target": 0.5}, r"the stage law is a schedule and takes no target"),
        (
            {"law": "stage", "knob": "up", "target": 0.5, "target_ratio": 0.5},
            r"the stage law is a schedule and takes no target or target_ratio",
        ),
        (
            {"law": "pi", "knob": "up", "initial": 0.5, "high": 0.4},
            r"the starting value of up must be a number >= -1 and",
        ),
        (
            {"law": "pi", "knob": "up", "target": 0.5, "target_ratio": 0.5},
            r"set either target or target_ratio \(share of the starting signal\), not both",
        ),
        ({"law": "pi", "knob": "up", "target": 0}, r"controllers\.mine\.target must be > 0, got 0"),
        ({"law": "pi", "knob": "up", "target_ratio": -0.5}, r"controllers\.mine\.target_ratio must be > 0, got -0\.5"),
        ({"law": "pi", "knob": "up", "target": "0.5"}, r"controllers\.mine\.target must be a number, got '0\.5'"),
    ],
)
def test_wrong_controller_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)


@pytest.mark.parametrize(
    ("spec", "configured"),
    [
        ({"law": "pi", "knob": "up", "initial": 0.25}, 0.5),  # two places say where it starts
        ({"law": "stage", "knob": "up"}, 0.5),  # a schedule decides that alone
    ],
)
def test_two_starting_values_are_refused(spec, configured):
    with pytest.raises(
        ValueError, match=r"up is set to 0\.5, but controllers\.mine decides its starting value: leave up"
    ):
        build(spec, values={"up": configured})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            {"target": None},
            r"controllers\.mine has no target: set entropy_target \(nats\) or entropy_target_ratio, or",
        ),
        ({"target": -0.1}, r"entropy_target must be > 0, got -0\.1"),
        ({"target_ratio": 0}, r"entropy_target_ratio must be > 0, got 0"),
    ],
)
def test_wrong_target_of_the_config_is_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        build({"law": "pi", "knob": "up"}, **targets)


def test_controllers_that_are_no_mapping_are_refused():
    with pytest.raises(ValueError, match=r"controllers must be a mapping of names to settings, got \['pi'\]"):
        build_controllers(["pi"], KNOBS, VALUES)


def test_two_controllers_on_one_knob_are_refused():
    specs = {"one": {"law": "pi", "knob": "up"}, "two": {"law": "stage", "knob": "up"}}
    with pytest.raises(ValueError, match="controllers 'one' and 'two' both turn up: keep one of them"):
        build_controllers(specs, KNOBS, VALUES, target=1.0)


@pytest.mark.parametrize("changes", [{"value": math.nan}, {"total": math.inf}, {"memory": {"total": math.nan}}])
def test_number_that_is_not_finite_is_damage(changes):
    state = controller(PI(), target=point(1.0)).state_dict() | changes
    with pytest.raises(ValueError, match=r"x\.json is damaged \(controllers\.mine has a number that is not finite\)"):
        controller(PI(), target=point(1.0)).load_state_dict(state, "x.json")


def test_start_over_no_steps_is_damage():
    state = controller(PI(), target=share(0.5)).state_dict()
    state["target"] = {"measured": 0, "total": 0.0, "known": True}
    with pytest.raises(ValueError, match=r"is damaged \(a start of 0\.0 over 0 steps\)"):
        controller(PI(), target=share(0.5)).load_state_dict(state, "x.json")
