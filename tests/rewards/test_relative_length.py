"""The bonus for short right completions, with numbers worked out by hand."""

import pytest

from trl_entropy.rewards import MathVerifyReward, RelativeLengthReward, relative_length_reward


RIGHT, WRONG, NONE = r"\boxed{24}", r"\boxed{25}", "no box"


def bonus(lengths, completions, reward=relative_length_reward, prompts=None, solution=None) -> list[float | None]:
    return reward(
        prompts=prompts or ["p"] * len(lengths),
        completions=completions,
        completion_ids=[[0] * length for length in lengths],
        solution=solution or ["24"] * len(lengths),
    )


def approx(values):
    return pytest.approx(values, abs=1e-12)


# (mean length of the right ones - length) / 500, between -0.5 and 1


@pytest.mark.parametrize(
    ("lengths", "completions", "expected"),
    [
        # All right: mean 250
        ([100, 200, 300, 400], [RIGHT] * 4, [0.3, 0.1, -0.1, -0.3]),
        # Three of four: the mean is that of the right ones, 200
        ([100, 200, 300, 4000], [RIGHT] * 3 + [WRONG], [0.2, 0.0, -0.2, 0.0]),
        ([4000, 100, 200, 300], [NONE] + [RIGHT] * 3, [0.0, 0.2, 0.0, -0.2]),
        # Half: too few
        ([100, 200, 300, 400], [RIGHT, RIGHT, WRONG, WRONG], [0.0] * 4),
        ([100, 200, 300], [RIGHT, RIGHT, WRONG], [0.0] * 3),
        ([100, 200, 300, 400], [WRONG] * 4, [0.0] * 4),
        # One alone is as long as the mean
        ([100], [RIGHT], [0.0]),
        ([100], [WRONG], [0.0]),
        # Above: mean 1250, 1150 / 500; below: mean 1250, -1150 / 500
        ([100, 2400], [RIGHT] * 2, [1.0, -0.5]),
        # At the bounds: mean 600, 500 / 500 and -250 / 500; mean 700 of three
        ([100, 850, 850], [RIGHT] * 3, [1.0, -0.5, -0.5]),
        ([700, 200, 1200], [RIGHT] * 3, [0.0, 1.0, -0.5]),
        # An empty completion has a length too
        ([0, 200], [RIGHT] * 2, [0.2, -0.2]),
    ],
)
def test_bonus(lengths, completions, expected):
    assert bonus(lengths, completions) == approx(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"accuracy": 0.5}, [0.1, -0.1, 0.0, 0.0]),  # mean 150
        ({"accuracy": 0.51}, [0.0] * 4),
        ({"accuracy": 0.0, "length_scale": 100}, [0.5, -0.5, 0.0, 0.0]),
        ({"accuracy": 0.5, "length_scale": 10}, [1.0, -0.5, 0.0, 0.0]),
        ({"accuracy": 0.5, "length_scale": 10, "high": 3.0, "low": -2.0}, [3.0, -2.0, 0.0, 0.0]),
        ({"accuracy": 0.5, "low": 0.0}, [0.1, 0.0, 0.0, 0.0]),
        ({"accuracy": 0.5, "high": 0.05}, [0.05, -0.1, 0.0, 0.0]),
        ({"accuracy": 0.5, "low": 0.0, "high": 0.0}, [0.0] * 4),
    ],
)
def test_settings(settings, expected):
    found = bonus([100, 200, 300, 400], [RIGHT, RIGHT, WRONG, NONE], RelativeLengthReward(**settings))
    assert found == approx(expected)


def test_groups_are_those_of_a_prompt_wherever_they_stand():
    found = bonus(
        prompts=["a", "b", "a", "b", "a"],
        completions=[RIGHT, r"\boxed{7}", RIGHT, r"\boxed{7}", RIGHT],
        solution=["24", "7", "24", "7", "24"],
        lengths=[100, 1000, 200, 1100, 300],
    )
    assert found == approx([0.2, 0.1, 0.0, -0.1, -0.2])  # means 200 and 1050


def test_a_group_with_too_few_right_ones_does_not_touch_the_other():
    found = bonus([100, 100, 300, 300], [RIGHT, RIGHT, RIGHT, WRONG], prompts=["a", "b", "a", "b"])
    assert found == approx([0.2, 0.0, -0.2, 0.0])


def test_conversations_are_grouped_by_all_their_messages():
    def prompt(text: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": "Think."}, {"role": "user", "content": text}]

    def completion(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    found = bonus(
        prompts=[prompt("a"), prompt("b"), prompt("a"), prompt("b")],
        completions=[completion(RIGHT) for _ in range(4)],
        lengths=[100, 1000, 200, 1400],
    )
    assert found == approx([0.1, 0.4, -0.1, -0.4])  # means 150 and 1200


def test_solution_that_cannot_be_read_gives_none():
    assert bonus([100, 200], [RIGHT] * 2, solution=["only words ####"] * 2) == [None, None]
    found = bonus([100, 200, 300], [RIGHT] * 3, prompts=["a", "b", "b"], solution=["", "24", "24"])
    assert found[0] is None
    assert found[1:] == approx([0.1, -0.1])


def test_answers_are_looked_for_where_the_given_reward_does():
    last = MathVerifyReward(["hashes"])
    completions = ["#### 24", "#### 24", r"\boxed{24}", "#### 24"]
    assert bonus([100, 200, 50, 300], completions, RelativeLengthReward(correct=last)) == approx([0.2, 0.0, 0.0, -0.2])
    assert bonus([100, 200, 50, 300], completions) == [0.0] * 4


def test_bonus_takes_what_trl_hands_over():
    found = relative_length_reward(
        prompts=["p"] * 2,
        completions=[RIGHT] * 2,
        completion_ids=[[1], [1] * 101],
        solution=["24"] * 2,
        difficulty=["easy"] * 2,
        trainer_state=None,
        log_extra=print,
        log_metric=print,
    )
    assert found == approx([0.1, -0.1])
    assert {type(value) for value in found} == {float}


def test_no_completions_have_no_bonus():
    assert bonus([], []) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_scale": 0}, "length_scale must be above 0 tokens, got 0"),
        ({"length_scale": -500}, "length_scale must be above 0 tokens, got -500"),
        ({"length_scale": float("nan")}, "length_scale must be above 0 tokens, got nan"),
        ({"low": 1.5}, "low must not be above high, got low=1.5 and high=1.0"),
        ({"low": float("nan")}, "low must not be above high, got low=nan and high=1.0"),
    ],
)
def test_wrong_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match="must") as refused:
        RelativeLengthReward(**settings)
    assert str(refused.value) == message
