import math

import pytest
from made import line, made, wiggly

from trl_entropy.lab.report.findings.finding import MIN_LOGS
from trl_entropy.lab.report.findings.learning import CUT, RIGHT, clipping, dead, groups, held_out, not_finite, reward


def test_values_that_are_not_finite():
    (found,) = not_finite(made(series={"entropy": [1.0, 1.0, math.nan, math.inf], "reward": [1.0] * 4}))
    assert found.text == "entropy was not finite, first at step 3"
    assert (found.evidence, found.severity) == ("2 of 4 logged values", "bad")
    assert "smaller learning_rate" in found.advice
    assert not_finite(made(series={"entropy": [1.0], "eval_loss": [math.nan]})) == []
    (found,) = not_finite(made(series={"reward": [1.0, math.nan]}))
    assert "check-rewards" in found.advice


def test_nothing_is_concluded_from_a_reward_with_a_nan():
    broken = wiggly([0.2, 0.4, 0.5, 0.6])
    broken[7] = math.nan
    assert reward(made(series={"reward": broken})) == []


# Ten logs of ten steps each, as TRL's default logs a run of 100
TENS = list(range(10, 101, 10))


def logged(reward: float, equal: float = 1.0, **more: float):
    series = {"reward": reward, "frac_reward_zero_std": equal, **more}
    return made(series={key: [value] * 10 for key, value in series.items()}, steps=TENS)


@pytest.mark.parametrize(
    ("run", "advice"),
    [
        (logged(0.0, **{CUT: 1.0, RIGHT: 0.0}), "raise max_completion_length"),
        (logged(0.0, 0.96, **{CUT: 0.2}), "the answers lack the format that the reward reads"),
        (logged(0.0), "check-rewards"),
        (logged(1.0, **{RIGHT: 1.0, CUT: 1.0}), "use harder problems"),
        (logged(0.1), "the reward does not tell them apart"),
        (made(series={"reward": [0.0] * 10}, steps=TENS), "the answers lack the format"),
        (made(series={"reward": [0.0], "frac_reward_zero_std": [1.0]}, steps=[100]), "the answers lack the format"),
    ],
)
def test_dead_run(run, advice):
    (found,) = dead(run)
    assert found.text == "Nothing to learn from since the start: in nearly every group all rewards are equal"
    assert found.severity == "bad"
    assert advice in found.advice


def test_evidence_of_a_dead_run():
    (found,) = dead(logged(0.0, **{CUT: 1.0, RIGHT: 0.0}))
    assert found.evidence == (
        "reward 0.00 → 0.00; 100% of the groups have equal rewards; 0% of the groups are all correct; 100% of the "
        "completions were cut at max_completion_length"
    )


def test_run_that_lives():
    assert dead(logged(0.0, 0.9)) == []
    assert dead(made(series={})) == []
    assert dead(made(series={"reward": [0.0] * 29, "frac_reward_zero_std": [1.0] * 29})) == []  # too few steps
    assert dead(made(series={"reward": line(0.0, 0.9), "frac_reward_zero_std": [0.96] * 40})) == []  # it learns
    assert dead(made(series={"reward": [0.0] * 40, "frac_reward_zero_std": [1.0] * 38 + [0.5] * 2})) == []
    assert dead(made(series={"reward": [0.0] * 38 + [math.nan] * 2, "frac_reward_zero_std": [1.0] * 40})) == []
    assert dead(made(series={"reward": [0.0] * 39 + [0.1]})) == []


def test_reward_at_the_end():
    (found,) = reward(made(series={"reward": wiggly([0.2, 0.4, 0.5, 0.6])}))
    assert (found.text, found.severity) == ("Reward was still rising at the end", "good")
    assert found.evidence == "0.20 at the start, 0.50 in the third quarter, 0.60 in the last"
    (found,) = reward(made(series={"reward": wiggly([0.2, 0.4, 0.6, 0.5])}))
    assert (found.text, found.severity) == ("Reward was falling at the end", "bad")
    (found,) = reward(made(series={"reward": wiggly([0.2, 0.4, 0.6, 0.605])}))
    assert (found.text, found.severity) == ("Reward was flat over the last half", "note")
    # a change as large, within the noise
    noisy = [value + 0.5 * (-1) ** k for k, value in enumerate(wiggly([0.2, 0.4, 0.5, 0.6]))]
    assert [finding.text for finding in reward(made(series={"reward": noisy}))] == [
        "Reward was flat over the last half"
    ]
    assert reward(made(series={"reward": [0.5] * 59})) == []


def test_groups_that_teach_nothing():
    shares = {
        "frac_reward_zero_std": line(0.1, 0.9),
        "groups/all_correct": line(0.0, 0.8),
        "groups/all_wrong": [0.1] * 40,
    }
    (found,) = groups(made(series=shares))
    # means of ten values on the line
    assert found.evidence == "19% of the groups at the start, 81% at the end; all correct 71%; all wrong 10%"
    assert "harder problems" in found.advice
    (found,) = groups(made(series={"frac_reward_zero_std": line(0.1, 0.9)}))
    assert "num_generations" in found.advice
    assert groups(made(series={"frac_reward_zero_std": line(0.1, 0.5)})) == []
    assert groups(made(series={"frac_reward_zero_std": [0.9] * 40})) == []  # from the start on


def clips(low: float, high: float, **more) -> dict:
    return {"clip_ratio/low_mean": [low] * MIN_LOGS, "clip_ratio/high_mean": [high] * MIN_LOGS, **more}


def test_clipping_on_one_side():
    (found,) = clipping(made(series=clips(0.001, 0.009)))
    assert found.text == "90% of the clipped tokens were clipped at the high end"
    assert found.evidence == "0.10% of the tokens at the low end, 0.90% at the high end"
    assert "epsilon_high" in found.advice
    (found,) = clipping(made(series=clips(0.009, 0.001)))
    assert "at the low end" in found.text
    assert clipping(made(series=clips(0.004, 0.006))) == []
    assert clipping(made(series=clips(0.0, 0.0009))) == []
    assert clipping(made(series={"clip_ratio/low_mean": [0.1] * 40})) == []


def test_clip_range_that_never_acts():
    turned = {"knobs/epsilon_high": line(0.2, 0.3, MIN_LOGS)}
    (found,) = clipping(made(series=clips(0.0, 0.0, **turned)))
    assert found.text == "No token was clipped, so epsilon_high had no effect"
    assert "off_policy_updates" in found.advice
    assert clipping(made(series=clips(0.0, 0.0))) == []
    settings = {"steps_per_generation": 4, "num_iterations": 1, "gradient_accumulation_steps": 1}
    for run in (
        made(series=clips(0.0, 0.0, **turned), settings=settings),
        made(series=clips(0.0, 0.0, **turned, **{"staleness/updates": [0.0, 1.0]})),
    ):
        assert clipping(run)[0].advice.startswith("The updates of a rollout batch stay inside the range")


def test_held_out_score_that_fell():
    scores = {"before": {"avg@8": 0.3, "pass@8": 0.9}, "after": {"avg@8": 0.4, "pass@8": 0.6}}
    (found,) = held_out(made(series={}, scores=scores))
    assert (found.text, found.evidence) == ("Held-out pass@8 fell", "avg@8 0.30 → 0.40, pass@8 0.90 → 0.60")
    assert found.advice == ""
    (found,) = held_out(made(series={"entropy": line(1.0, 0.2)}, scores=scores))
    assert "keep more entropy" in found.advice
    (found,) = held_out(made(series={"entropy": line(0.2, 1.0)}, scores=scores))
    assert found.advice == ""
    assert held_out(made(series={}, scores=scores | {"after": {"pass@8": 0.86}})) == []
    assert held_out(made(series={}, scores={"after": {"pass@8": 0.6}})) == []


def test_groups_of_equal_rewards_that_train_are_not_dead():
    alone = {"settings": {"advantage_bonuses": {"w_reinforce": {}}}}
    series = {"reward": [0.0] * 10, "frac_reward_zero_std": [1.0] * 10}
    assert dead(made(series=series, steps=TENS)) != []
    assert dead(made(series=series, steps=TENS, **alone)) == []
    many = {"frac_reward_zero_std": [0.0] * 20 + [1.0] * 20}
    assert groups(made(series=many)) != []
    assert groups(made(series=many, **alone)) == []


def test_nothing_is_concluded_from_one_reward():
    assert dead(made(series={"reward": [0.0]}, steps=[500])) == []


def test_partial_reward_of_a_run_that_is_dead():
    (found,) = dead(logged(0.1, **{RIGHT: 0.0}))
    assert found.advice.startswith("The reward does not tell the answers apart")
