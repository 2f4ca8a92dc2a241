import math

import pytest
from made import full, made

from trl_entropy.lab.report.settings import differing
from trl_entropy.lab.report.statistics import Arm
from trl_entropy.lab.report.summary import ending, summary


def test_summary_of_seeds_and_of_an_arm_without_control():
    seeds = Arm("held", [full("1", scale=1.0), full("2", scale=1.0)])
    plain = Arm("plain", [made(series={"entropy": [1.0] * 10 + [0.5] * 10, "reward": [0.25] * 20})])
    head, cells = summary([seeds, plain])
    assert head == ["arm", "runs", "steps", "entropy (nats)", "target", "settled at step", "reward", "avg@8", "pass@8"]
    # 0.2 + 0.6 x 0.95^k: means over k = 0..9 and 50..59; over steps j-9..j it is below 0.33 from j = 40 on
    assert cells[0][:6] == ["held", "2", "60", "0.68 → 0.24 ± 0.00", "0.30", "never"]
    assert cells[0][7:] == ["0.30 → 0.50 ± 0.00", "0.90 → 0.70 ± 0.00"]
    assert cells[1] == ["plain", "1", "20", "1.00 → 0.50", "–", "–", "0.25 → 0.25", "–", "–"]
    assert "target" not in summary([plain])[0]


def row(**series) -> dict[str, str]:
    head, (cells,) = summary([Arm("a", [made(series=series)])])
    return dict(zip(head, cells, strict=True))


def test_summary_of_few_steps_shows_the_fall():
    # ten logs from 1.0 to 0.1: means of five
    assert row(entropy=[(10 - k) / 10 for k in range(10)])["entropy (nats)"] == "0.80 → 0.30"
    assert row(entropy=[0.5])["entropy (nats)"] == "0.50"


def test_summary_shows_a_nan():
    told = row(entropy=[0.5] * 20 + [math.nan], reward=[math.nan] * 21, **{"controllers/a/target": [0.5] * 21})
    assert told["entropy (nats)"] == "0.50 → nan"
    assert told["reward"] == "nan → nan"
    assert told["settled at step"] == "never"


def test_summary_counts_the_seeds_that_never_settled():
    def run(level):
        series = {"entropy": [1.0] * 10 + [level] * 40, "controllers/a/target": [0.5] * 50}
        return made(series=series)

    head, ((*_, settled),) = summary([Arm("a", [run(0.51), run(0.52), run(0.9)])])
    assert (head[-1], settled) == ("settled at step", "20, never (1)")


@pytest.mark.parametrize(
    ("fields", "now", "told"),
    [
        ({}, 1e9, "finished at step 60 of 60"),
        ({"max_steps": 90}, 1e9 + 30, "still running at step 60 of 90, last seen 30 seconds ago"),
        ({"max_steps": 90}, 1e9 + 3700, "stopped at step 60 of 90, last seen 1 hour ago"),
        ({"max_steps": None}, 1e9 + 3 * 86400, "stopped at step 60, last seen 3 days ago"),
        (
            {"last_time": None, "max_steps": 90, "unreadable": 2},
            1e9,
            "not finished at step 60 of 90; 2 lines of its log cannot be read",
        ),
    ],
)
def test_ending(fields, now, told):
    assert ending(full(**fields), now) == told


def test_run_of_long_steps_is_given_time():
    slow = made(series={"time": [1e9, 1e9 + 300]}, max_steps=9, last_time=1e9 + 300)
    assert ending(slow, 1e9 + 300 + 1400).startswith("still running")
    assert ending(slow, 1e9 + 300 + 1600).startswith("stopped")


def test_settings_that_differ_between_arms():
    arms = [Arm(name, [made(series={}, settings=settings)]) for name, settings in (
        ("a", {"beta": 0.0, "seed": 1, "k": None, "controllers": {"hold": {"kp": 2.0, "law": "pi"}}, "same": [1]}),
        ("b", {"beta": 0.04, "seed": 2, "k": {}, "controllers": {}, "same": [1]}),
    )]  # fmt: skip
    assert differing(arms) == (
        ["setting", "a", "b"],
        [["beta", "0", "0.04"], ["controllers.hold.kp", "2", "–"], ["controllers.hold.law", "pi", "–"]],
    )
    assert differing([*arms, Arm("c", [made(series={})])]) == ([], [])


def test_settings_of_one_arm_are_compared_with_the_defaults():
    head, cells = differing([Arm("a", [made(series={}, settings={"beta": 0.04, "temperature": 1.0, "seed": 9})])])
    assert head == ["setting", "a", "default"]
    assert ["beta", "0.04", "0"] in cells
    assert "temperature" not in {row[0] for row in cells}
    assert "seed" not in {row[0] for row in cells}
