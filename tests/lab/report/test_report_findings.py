import math

from made import made, wiggly

from trl_entropy.lab.report.findings import Finding, findings, findings_between, of_run
from trl_entropy.lab.report.findings.finding import merged
from trl_entropy.lab.report.statistics import Arm


# All together


def test_gravest_come_first():
    run = made(series={"entropy": [1.0] * 40 + [0.1] * 40, "reward": wiggly([0.2, 0.4, 0.5, 0.6])})
    assert [finding.severity for finding in findings(Arm("a", [run]))] == ["bad", "good"]
    assert [finding.severity for finding in of_run(run)] == ["bad", "good"]
    assert findings(Arm("a", [made(series={})])) == []


def test_dead_run_is_spoken_of_first():
    fell = {"entropy": [1.0] * 40 + [0.1] * 40, "loss": [math.nan] * 80}
    dead = {"reward": [0.0] * 80, "frac_reward_zero_std": [1.0] * 80}
    alive = {"reward": wiggly([0.2, 0.4, 0.6, 0.5]), "frac_reward_zero_std": [0.2] * 80}
    for runs in ([fell | dead], [fell | alive, fell | dead]):
        found = findings(Arm("a", [made(series=series) for series in runs]))
        assert found[0].text.startswith("Nothing to learn from since the start")
        assert {finding.severity for finding in found[1:]} == {"bad", "note"}


def test_findings_of_seeds_are_one():
    first = Finding("fell below 30% at step 140", "0.75 → 0.2", "note", "hold it")
    second = Finding("fell below 30% at step 99", "0.8 → 0.2", "bad")
    other = Finding("reward was flat", "-1e-05", "note")
    assert merged([first, second, other], 2) == [
        Finding("fell below 30% at step 99 to 140 (2 of 2 runs)", "0.75 to 0.8 → 0.2", "bad", "hold it"),
        Finding("reward was flat (1 of 2 runs)", "-1e-05", "note"),
    ]
    assert merged([first, other], 1) == [first, other]
    uneven = [Finding("a 1", "one", "note"), Finding("a 2", "two", "note")]
    assert merged(uneven, 2) == [Finding("a 1 to 2 (2 of 2 runs)", "one; two", "note")]


# Between arms


def arm(name: str, *ends: float, **scores) -> Arm:
    """An arm of one run for each entropy at its end, with the reward 1 - that."""
    each = [
        made(
            name,
            f"seed{seed}/{name}",
            series={"entropy": [end] * 30, "reward": [1 - end] * 30},
            scores={"after": scores},
        )
        for seed, end in enumerate(ends)
    ]
    return Arm(name, each)


def test_arms_are_compared_seed_by_seed():
    # differences of 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, so 4.3027 * 0.1 / sqrt(3) = 0.248
    entropy, rewards = findings_between([arm("plain", 0.1, 0.2, 0.3), arm("held", 0.2, 0.4, 0.6)])
    assert (
        entropy.text == "held ended with the most entropy: 0.40 ± 0.50 nats; plain is within the interval of the seeds"
    )
    assert entropy.evidence == "against plain: entropy +0.200 ± 0.248, reward -0.200 ± 0.248"
    assert rewards.text.startswith("plain ended with the most reward: 0.80 ± 0.25")
    (entropy, _) = findings_between([arm("plain", 0.1, 0.2), arm("held", 0.3, 0.4)])
    assert entropy.text == "held ended with the most entropy: 0.35 ± 0.64 nats"
    assert entropy.evidence == "against plain: entropy +0.200 ± 0.000, reward -0.200 ± 0.000"


def test_arms_of_one_seed_have_no_interval():
    found = findings_between([arm("a", 0.1, **{"pass@8": 0.5}), arm("b", 0.4, **{"pass@8": 0.75}), arm("c", 0.2)])
    assert [finding.text for finding in found] == [
        "b ended with the most entropy: 0.40 nats",
        "a ended with the most reward: 0.90",
        "b ended with the most pass@8: 0.75",
    ]
    assert found[0].evidence == (
        "against c: entropy +0.200, reward -0.200; against a: entropy +0.300, reward -0.300 "
        "(without an interval: one seed)"
    )


def test_arm_without_a_finite_end_is_compared_as_nan():
    found = findings_between([arm("a", math.nan), arm("b", 0.4), arm("c", 0.2)])
    assert found[0].text == "b ended with the most entropy: 0.40 nats"
    assert found[0].evidence.startswith(
        "against c: entropy +0.200, reward -0.200; against a: entropy +nan, reward +nan"
    )
    assert findings_between([arm("a", math.nan), arm("b", math.nan)]) == []


def test_nothing_is_compared_without_data():
    assert findings_between([arm("a", 0.1)]) == []
    assert findings_between([arm("a", 0.1, 0.2), arm("b", 0.1, 0.2)]) == []  # the same
    short = Arm("b", [made("b", series={"entropy": [0.1] * 29})])
    assert findings_between([arm("a", 0.1), short]) == []
