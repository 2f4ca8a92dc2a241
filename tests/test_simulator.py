"""What the laws and the clip do to the entropy of a policy that is simulated: see simulator.py."""

import copy
import json

import numpy as np
import pytest
import torch
from simulator import Simulator, entropies, log_softmax, peaked
from toy import few


LAMBDA, ALPHA = "positive_advantage_coef", "token_weights.confident_sign.alpha"
WINDOW = 50  # updates that a smoothed value is the mean of

# Eight contexts with 1, 2 or 3 right actions each; the action on which `peaked` puts its mass is none of them
RIGHT = np.zeros((8, 10))
for context in range(8):
    RIGHT[context, [(context + 1 + 3 * k) % 10 for k in range(1 + context % 3)]] = 1.0
RANDOM = 0.5  # a coin decides: nothing can be learnt, what moves the entropy is the update itself

# On-policy on a task that is learnt; off-policy on rewards that are random, 16 updates per rollout. The learning rate
# is shared by the contexts: 8 with 8 of them and 32 with 32 are the same step on each.
LEARNT = {"success": RIGHT, "learning_rate": 8.0, "steps": 600}
OFF_POLICY = {"success": RANDOM, "contexts": 32, "group": 8, "updates": 16}


def last_half(simulator: Simulator) -> np.ndarray:
    return np.array(simulator.entropies[len(simulator.entropies) // 2 :])


def mean(simulator: Simulator) -> float:
    return float(last_half(simulator).mean())


def smoothed(simulator: Simulator) -> np.ndarray:
    return np.convolve(last_half(simulator), np.full(WINDOW, 1 / WINDOW), mode="valid")


def over_seeds(start: float, seeds: int = 1, contexts: int = 8, **settings) -> list[Simulator]:
    return [Simulator(peaked(start, contexts), seed=seed, **settings).run() for seed in range(seeds)]


def end(simulators: list[Simulator]) -> float:
    return float(np.mean([simulator.entropies[-1] for simulator in simulators]))


# The simulator itself


def test_entropy_by_hand():
    # two actions of 1/2: log 2; 3/4 and 1/4: 3/4 log 4/3 + 1/4 log 4
    logps = log_softmax(np.log([[0.5, 0.5], [0.75, 0.25]]) + 3.0)
    assert entropies(logps) == pytest.approx([0.693147180559945, 0.562335144618808], abs=1e-12)


@pytest.mark.parametrize("entropy", [0.3, 1.5, 2.3])
def test_peaked_has_the_entropy_asked_for(entropy):
    assert entropies(log_softmax(peaked(entropy))) == pytest.approx([entropy] * 8, abs=1e-9)


def test_advantages_by_hand():
    # one context, whose rewards are those of the sampled actions; group of 4
    simulator = Simulator(np.zeros((1, 2)), [[1.0, 0.0]], learning_rate=1.0, steps=1, seed=3, group=4).run()
    rewards = 1.0 - simulator.world.actions[0, 0]
    assert sorted(rewards) == [0, 0, 1, 1]
    # mean 1/2, deviation with n - 1: sqrt(1/3)
    assert simulator.world.advantages[0, 0] == pytest.approx((rewards - 0.5) / (3**-0.5 + 1e-4), abs=1e-12)


def test_gradient_is_that_of_the_clipped_loss():
    """Against autograd on TRL's formula, at an off-policy update with clipped tokens, weights and bonus."""
    knobs = {LAMBDA: 0.5, "negative_advantage_coef": 1.5, "entropy_coef": 0.1, "epsilon_low": 0.05}
    rules = {"confident_sign": {"alpha": -0.4, "threshold": 0.3}}
    simulator = Simulator(peaked(1.0), RANDOM, 8.0, 16, seed=0, updates=16, rules=rules, **knobs).run(15)
    world, tokens = simulator.world, simulator.tokens()
    assert tokens.clipped.any()

    logits = torch.tensor(world.logits, requires_grad=True)
    logps = logits.log_softmax(-1)
    actions, advantages = torch.tensor(world.actions[15]), torch.tensor(world.advantages[15])
    sampled = logps.gather(-1, actions)
    weights = torch.where(advantages > 0, 0.5, torch.where(advantages < 0, 1.5, 1.0))
    weights = weights * torch.where(sampled.detach().exp() > 0.3, 1 - 0.4 * advantages.sign(), 1.0)
    ratios = (sampled - torch.tensor(world.old_logps[15])).exp()
    clipped = torch.min(ratios * weights * advantages, ratios.clamp(0.95, 1.2) * weights * advantages)
    (clipped.mean() + 0.1 * -(logps.exp() * logps).sum(-1).mean()).backward()
    assert simulator.gradient(tokens) == pytest.approx(logits.grad.numpy(), abs=1e-12)


def test_same_seed_gives_the_same_run():
    settings = {"success": RIGHT, "learning_rate": 8.0, "steps": 50}
    first, second, other = (Simulator(peaked(1.5), seed=seed, **settings).run() for seed in (0, 0, 1))
    assert first.entropies == second.entropies != other.entropies


# Laws that steer, on knobs that can hold the target


def control(law: tuple, knob: str, target: float, **more) -> dict:
    return {"mine": {"law": law[0], **law[1], "knob": knob, "target": target, **more}}


# law, its parameters, and the share of the target by which a smoothed value may miss it
BONUS_LAWS = [
    ("bang_bang", {"step": 0.02}, 0.1),
    ("bang_bang", {"step": 0.02, "otherwise": 0.0}, 0.1),
    ("integral", {"rate": 0.05}, 0.1),
    ("pi", {"kp": 1.0, "ki": 0.02}, 0.1),
]
LAMBDA_LAWS = [
    ("bang_bang", {"step": 0.05}, 0.15),
    ("integral", {"rate": 0.2}, 0.15),
    ("pi", {"kp": 3.0, "ki": 0.05, "anti_windup": True}, 0.15),
]
ALPHA_LAWS = [
    ("bang_bang", {"step": 0.05}, 0.1),
    ("integral", {"rate": 0.2}, 0.1),
    ("pi", {"kp": 1.0, "ki": 0.01}, 0.1),
]


def assert_held(simulators: list[Simulator], target: float, share: float) -> None:
    """The mean of the last half within 10 % of the target, every smoothed value in it within the share given."""
    for simulator in simulators:
        assert mean(simulator) == pytest.approx(target, rel=0.1)
        assert np.abs(smoothed(simulator) - target).max() <= share * target


@pytest.mark.parametrize("start", few([0.3, 2.3]))
@pytest.mark.parametrize("law", BONUS_LAWS, ids=lambda law: law[0])
def test_entropy_coef_holds_the_target_while_a_task_is_learnt(law, start):
    simulators = over_seeds(start, **LEARNT, controllers=control(law, "entropy_coef", 1.0))
    assert_held(simulators, 1.0, share=law[2])


@pytest.mark.parametrize("start", few([0.7, 1.6]))
@pytest.mark.parametrize("law", LAMBDA_LAWS, ids=lambda law: law[0])
def test_positive_advantage_coef_holds_the_target_off_policy(law, start):
    controllers = control(law, LAMBDA, 1.1, initial=0.0, low=0.0, high=1.0)
    simulators = over_seeds(start, **OFF_POLICY, learning_rate=32.0, steps=960, controllers=controllers)
    assert_held(simulators, 1.1, share=law[2])


@pytest.mark.parametrize("start", few([0.6, 1.6]))
@pytest.mark.parametrize("law", ALPHA_LAWS, ids=lambda law: law[0])
def test_alpha_holds_the_target_off_policy(law, start):
    settings = {"rules": {"confident_sign": {"threshold": 0.3}}, "epsilon_low": 0.1, "epsilon_high": 0.1}
    simulators = over_seeds(
        start, **OFF_POLICY, **settings, learning_rate=16.0, steps=960, controllers=control(law, ALPHA, 1.1)
    )
    assert_held(simulators, 1.1, share=law[2])


@pytest.mark.parametrize("start", [0.7, 1.6])
def test_without_control_the_same_runs_do_not_hold_the_target(start):
    for simulator in over_seeds(start, **LEARNT):
        assert mean(simulator) < 0.2
    for simulator in over_seeds(start, **OFF_POLICY, learning_rate=32.0, steps=960):
        assert mean(simulator) < 0.9


# Where a law cannot hold it


@pytest.mark.parametrize("law", few(LAMBDA_LAWS), ids=lambda law: law[0])
def test_positive_advantage_coef_cannot_hold_it_where_negatives_alone_lower_entropy(law):
    # what is left to learn from mistakes moves mass to the right actions: the knob rests at 0, the entropy falls on
    controllers = control(law, LAMBDA, 1.0, initial=0.0, low=0.0, high=1.0)
    for simulator in over_seeds(2.0, **LEARNT, controllers=controllers):
        assert simulator.turned[-1][LAMBDA] == 0.0
        assert mean(simulator) < 0.2


def test_alpha_cannot_hold_it_where_a_task_is_learnt():
    # EntroPIC's gains: the knob ends at its bound
    for simulator in over_seeds(
        1.0, **LEARNT, rules={"confident_sign": {"threshold": 0.3}}, controllers=control(("pi", {}), ALPHA, 1.0)
    ):
        assert simulator.turned[-1][ALPHA] == -1.0
        assert mean(simulator) < 0.2


@pytest.mark.parametrize("law", few(BONUS_LAWS), ids=lambda law: law[0])
def test_bonus_that_is_never_negative_cannot_hold_it_where_the_clip_raises_entropy(law):
    # a tight clip-low: only a negative coefficient holds the target, and one that is off above it has none
    settings = {**OFF_POLICY, "learning_rate": 16.0, "steps": 480, "epsilon_low": 0.05}
    for low, held in (({}, "otherwise" not in law[1]), ({"low": 0.0}, False)):
        for simulator in over_seeds(1.0, **settings, controllers=control(law, "entropy_coef", 1.0, **low)):
            assert (mean(simulator) < 1.1) == held
            assert mean(simulator) > 0.9
            assert held or simulator.turned[-1]["entropy_coef"] == 0.0


def test_pi_that_winds_up_passes_the_target_and_stays_there_for_long():
    settings = {**OFF_POLICY, "learning_rate": 16.0, "steps": 800, "epsilon_low": 0.1, "epsilon_high": 0.05}
    for anti_windup, held in ((False, False), (True, True)):
        law = ("pi", {"kp": 3.0, "ki": 0.05, "anti_windup": anti_windup})
        controllers = control(law, LAMBDA, 1.1, initial=0.0, low=0.0, high=1.0)
        for simulator in over_seeds(0.6, **settings, controllers=controllers):
            assert (mean(simulator) < 1.21) == held


# EntroPIC's theory: on-policy the proportional part alone comes close, off-policy it leaves an error


def steady_error(updates: int, ki: float) -> tuple[list[float], float]:
    """Per seed the mean of H - target; and the mean of the knob over all seeds."""
    settings = {"success": RANDOM, "learning_rate": 4.0, "steps": 800, "updates": updates, "epsilon_high": 0.05}
    controllers = control(("pi", {"kp": 0.1, "ki": ki}), "entropy_coef", 1.0)
    simulators = over_seeds(1.0, **settings, controllers=controllers)
    turned = [values["entropy_coef"] for simulator in simulators for values in simulator.turned[400:]]
    return [mean(simulator) - 1.0 for simulator in simulators], float(np.mean(turned))


def test_proportional_part_alone_leaves_an_error_off_policy():
    on_policy, _ = steady_error(updates=1, ki=0.0)
    off_policy, knob = steady_error(updates=16, ki=0.0)
    with_integral, needed = steady_error(updates=16, ki=0.002)
    assert np.abs(on_policy).max() < 0.1
    assert max(off_policy) < -0.25  # the clip's drift is downwards
    assert np.abs(with_integral).max() < 0.05
    # u = kp e: the error that is left is what holds the knob where it has to be
    assert knob == pytest.approx(-0.1 * np.mean(off_policy), abs=1e-3)
    assert knob == pytest.approx(needed, rel=0.25)


def test_proportional_part_alone_leaves_an_error_on_policy_too_while_a_task_is_learnt():
    # what pulls the entropy away here is learning, which does not need the clip
    for ki, held in ((0.0, False), (0.02, True)):
        controllers = control(("pi", {"kp": 1.0, "ki": ki}), "entropy_coef", 1.0)
        errors = [mean(simulator) - 1.0 for simulator in over_seeds(1.0, **LEARNT, controllers=controllers)]
        assert np.abs(errors).max() < 0.05 if held else max(errors) < -0.3


# "Clip-Low Increases Entropy and Clip-High Decreases Entropy" (2509.26114): random rewards, 16 updates per rollout


def drifted(**clip) -> list[Simulator]:
    return over_seeds(1.5, **OFF_POLICY, learning_rate=16.0, steps=480, **clip)


def test_smaller_epsilon_low_ends_at_higher_entropy():
    ends = [end(drifted(epsilon_low=epsilon)) for epsilon in (0.05, 0.2, 1.0)]
    assert all(first > second + 0.15 for first, second in zip(ends, ends[1:], strict=False)), ends
    assert ends[0] > 1.5 > ends[1]  # tight clip-low raises the entropy; TRL's 0.2 on both sides lowers it


def test_larger_epsilon_high_ends_at_higher_entropy():
    ends = [end(drifted(epsilon_high=epsilon)) for epsilon in (0.05, 0.2, 10.0)]
    assert all(first + 0.15 < second for first, second in zip(ends, ends[1:], strict=False)), ends


def test_with_one_update_per_rollout_the_clip_never_fires():
    settings = {"success": RANDOM, "learning_rate": 8.0, "steps": 200}
    (tight,) = over_seeds(1.5, 1, **settings, epsilon_low=0.01, epsilon_high=0.01)
    (wide,) = over_seeds(1.5, 1, **settings, epsilon_low=1.0, epsilon_high=10.0)
    assert sum(tight.clipped) == sum(wide.clipped) == 0.0
    assert tight.entropies == wide.entropies
    assert np.array_equal(tight.world.logits, wide.world.logits)
    (several,) = over_seeds(1.5, 1, **settings, updates=16, epsilon_low=0.01, epsilon_high=0.01)
    assert np.mean(several.clipped) > 0.1


# The sign of the advantages


def test_positives_alone_lower_entropy_and_negatives_alone_raise_it():
    settings = {**OFF_POLICY, "learning_rate": 32.0, "steps": 480}
    both = end(over_seeds(1.5, **settings))
    positives = end(over_seeds(1.5, **settings, negative_advantage_coef=0.0))
    negatives = end(over_seeds(1.5, **settings, positive_advantage_coef=0.0))
    assert positives < both - 0.1
    assert positives < 0.5
    assert both < 1.0
    assert negatives > 1.6


def test_negatives_alone_raise_entropy_while_a_task_is_learnt_until_it_is():
    settings = {"success": RIGHT, "learning_rate": 2.0, "group": 8}
    both = over_seeds(1.5, steps=201, **settings)
    positives = over_seeds(1.5, steps=201, **settings, negative_advantage_coef=0.0)
    negatives = over_seeds(1.5, steps=600, **settings, positive_advantage_coef=0.0)
    for simulators, low, high in ((both, 0.0, 0.5), (positives, 0.5, 1.2), (negatives, 1.6, 2.3)):
        assert all(low < simulator.entropies[200] < high for simulator in simulators)
    assert all(simulator.entropies[-1] < 1.0 for simulator in negatives)


# Two controllers


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_two_controllers_on_two_knobs_hold_the_target(start):
    controllers = {
        "weight": {"law": "bang_bang", "knob": LAMBDA, "target": 1.1, "initial": 0.0, "low": 0.0, "high": 1.0},
        "bonus": {"law": "pi", "knob": "entropy_coef", "target": 1.1, "kp": 1.0, "ki": 0.02},
    }
    for simulator in over_seeds(start, **LEARNT, controllers=controllers):
        assert_held([simulator], 1.1, share=0.1)
        for name in (LAMBDA, "entropy_coef"):
            assert np.ptp([values[name] for values in simulator.turned[300:]]) > 0.02  # both are at work
        assert simulator.logged["controllers/weight/target"] == simulator.logged["controllers/bonus/target"] == 1.1
        assert simulator.logged["controllers/weight/error"] == -simulator.logged["controllers/bonus/error"]


# Resume


@pytest.mark.parametrize("target", [{"target": 1.0}, {"target_ratio": 0.6}], ids=["nats", "ratio"])
@pytest.mark.parametrize("stop", [48, 53])  # between two rollouts, and within one
def test_state_in_the_middle_of_a_run_continues_bit_for_bit(stop, target):
    controllers = {
        "weight": {"law": "bang_bang", "knob": LAMBDA, "initial": 0.0, "low": 0.0, "high": 1.0, **target},
        "bonus": {"law": "pi", "knob": "entropy_coef", "kp": 0.1, "ki": 0.002, **target},
        "late": {"law": "stage", "knob": "epsilon_high"},
    }

    def fresh() -> Simulator:
        return Simulator(peaked(1.5), RIGHT, 8.0, 120, seed=0, updates=8, controllers=controllers)

    whole, first, second = fresh().run(), fresh().run(stop), fresh()
    states = json.loads(json.dumps([controller.state_dict() for controller in first.controllers]))
    second.world = copy.deepcopy(first.world)
    for controller, state in zip(second.controllers, states, strict=True):
        controller.load_state_dict(state)
    second.run()
    assert first.entropies + second.entropies == whole.entropies
    assert first.turned + second.turned == whole.turned
    assert np.array_equal(second.world.logits, whole.world.logits)
    assert [c.state_dict() for c in second.controllers] == [c.state_dict() for c in whole.controllers]
