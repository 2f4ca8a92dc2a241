import math

from made import line, made, wiggly

from trl_entropy.report.findings.finding import MIN_LOGS
from trl_entropy.report.findings.learning import clipping, groups, held_out, not_finite, reward


def test_values_that_are_not_finite():
    (found,) = not_finite(made(series={"entropy": [1.0, 1.0, math.nan, math.inf], "reward": [1.0] * 4}))
    assert found.text == "entropy was not finite, first at step 3"
    assert (found.evidence, found.severity) == ("2 of 4 logged values", "bad")
    assert not_finite(made(series={"entropy": [1.0], "eval_loss": [math.nan]})) == []


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


def test_held_out_score_that_fell():
    scores = {"before": {"avg@8": 0.3, "pass@8": 0.9}, "after": {"avg@8": 0.4, "pass@8": 0.6}}
    (found,) = held_out(made(series={}, scores=scores))
    assert (found.text, found.evidence) == ("Held-out pass@8 fell", "avg@8 0.30 → 0.40, pass@8 0.90 → 0.60")
    assert held_out(made(series={}, scores=scores | {"after": {"pass@8": 0.86}})) == []
    assert held_out(made(series={}, scores={"after": {"pass@8": 0.6}})) == []
