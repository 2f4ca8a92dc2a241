"""What is graded is what the policy wrote, and nothing else."""

import json

import pytest

from trl_entropy.rewards import (
    MathVerifyReward,
    RelativeLengthReward,
    answers_of,
    boxed_format_reward,
    last_number_reward,
    math_verify_reward,
    reasoning_gym_reward,
    relative_length_reward,
)
from trl_entropy.rewards.messages import content


def text(part: str) -> dict:
    return {"type": "text", "text": part}


CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "solve"}}]}
TOOL = {"role": "tool", "name": "solve", "content": r"\boxed{24}"}
RIGHT, WRONG = ({"role": "assistant", "content": rf"\boxed{{{n}}}"} for n in (24, 25))


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (r"\boxed{24}", r"\boxed{24}"),
        ([RIGHT], r"\boxed{24}"),
        ([WRONG, RIGHT], r"\boxed{24}"),
        # the turn after a tool's may be missing, and then the last one of the policy is its call
        ([CALL, TOOL], ""),
        ([CALL, TOOL, WRONG], r"\boxed{25}"),
        ([WRONG, TOOL], r"\boxed{25}"),
        ([RIGHT, CALL, TOOL], ""),
        ([TOOL], ""),
        ([{"role": "user", "content": r"\boxed{24}"}], ""),
        ([{"content": r"\boxed{24}"}], ""),
        ([], ""),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": []}], ""),
        ([{"role": "assistant", "content": [text(r"\boxed"), {"type": "image"}, text("{24}")]}], r"\boxed{24}"),
        ([CALL, {"role": "tool", "content": [text(r"\boxed{24}")]}], ""),
    ],
)
def test_text_of_a_completion(completion, expected):
    assert content(completion) == expected
    (answer,) = answers_of([completion], [math_verify_reward])
    assert answer == (expected.removeprefix(r"\boxed{").removesuffix("}") or None)
    right = [float(expected == r"\boxed{24}")]
    assert math_verify_reward([completion], ["24"]) == last_number_reward([completion], ["24"]) == right
    assert boxed_format_reward([completion]) == [float(expected != "")]


def test_text_of_the_policys_tokens_is_graded_in_place_of_the_completions():
    completions, own = [r"\boxed{24}", [RIGHT]], [r"\boxed{25}", "25"]
    assert math_verify_reward(completions, ["24"] * 2, policy_text=own) == [0.0, 0.0]
    assert math_verify_reward(completions, ["25"] * 2, policy_text=own) == [1.0, 0.0]
    assert last_number_reward(completions, ["25"] * 2, policy_text=own) == [1.0, 1.0]
    assert boxed_format_reward(completions, policy_text=own) == [1.0, 0.0]


def test_score_of_a_task_is_that_of_the_policys_text():
    pytest.importorskip("reasoning_gym")
    from trl_entropy.rewards.reasoning_gym import task

    answer = task("chain_sum", {"seed": 7, "size": 10})[0]["answer"]
    origin = json.dumps({"task": "chain_sum", "settings": {"seed": 7, "size": 10}, "index": 0})
    completions = [rf"\boxed{{{answer}}}"]
    assert reasoning_gym_reward(completions, [origin]) == [1.0]
    assert reasoning_gym_reward(completions, [origin], policy_text=["no box"]) == [0.0]


def bonus(lengths: list[int], completions: list, reward=relative_length_reward, **told) -> list[float]:
    ids = [[0] * length for length in lengths]
    count = len(lengths)
    return reward(prompts=["p"] * count, completions=completions, completion_ids=ids, solution=["24"] * count, **told)


def test_groups_of_one_prompt_are_told_apart():
    # of the first all are right, of the second none; together half, which would be too few
    lengths, completions = [100, 200, 300, 400] * 2, [[RIGHT]] * 4 + [[WRONG]] * 4
    expected = [0.3, 0.1, -0.1, -0.3, 0.0, 0.0, 0.0, 0.0]
    assert bonus(lengths, completions, rollout_group=[6] * 4 + [7] * 4) == pytest.approx(expected)
    assert bonus(lengths, completions) == [0.0] * 8


def test_length_is_that_of_the_policys_tokens():
    # 100 and 200 of 500 tokens each: mean 150
    mask = [[1] * own + [0] * (500 - own) for own in (100, 200)]
    assert bonus([500, 500], [[RIGHT]] * 2, env_mask=mask) == pytest.approx([0.1, -0.1])
    assert bonus([500, 500], [[RIGHT]] * 2) == [0.0, 0.0]
    reward = RelativeLengthReward(correct=MathVerifyReward("last_number"))
    own = ["24", "25"]
    assert bonus([100, 200], [[RIGHT]] * 2, reward, policy_text=own) == [0.0, 0.0]
