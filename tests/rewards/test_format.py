"""Whether there is a box, and what else can be imported beside the verifier."""

import subprocess
import sys

import pytest
import trl.rewards

import trl_entropy.rewards
from trl_entropy.rewards import TRL_REWARD_FACTORIES, TRL_REWARDS, boxed_format_reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (r"\boxed{24}", 1.0),
        (r"\boxed{anything}", 1.0),
        (r"\boxed{\frac{1}{2}} and so on", 1.0),
        (r"\fbox{24}", 1.0),
        (r"\boxed{} then \boxed{24}", 1.0),
        (r"\boxed{24} then \boxed{}", 0.0),
        (r"\boxed{24} then \boxed{", 0.0),
        (r"\boxed{24", 0.0),
        (r"\boxed{ }", 0.0),
        ("boxed{24}", 0.0),
        ("The answer is $24$.", 0.0),
        ("", 0.0),
        ("\ud800", 0.0),
    ],
)
def test_last_box_must_be_closed_and_not_empty(completion, reward):
    assert boxed_format_reward([completion]) == [reward]


def test_last_message_of_a_conversation_counts():
    boxed, bare = ({"role": "assistant", "content": text} for text in (r"\boxed{24}", "24"))
    assert boxed_format_reward([[boxed], [boxed, bare], [bare, boxed]]) == [1.0, 0.0, 1.0]


def test_no_solution_is_needed_and_what_trl_hands_over_is_taken():
    rewards = boxed_format_reward(
        prompts=["?"], completions=[r"\boxed{1}"], completion_ids=[[1]], solution=["24"], log_metric=print
    )
    assert rewards == [1.0]
    assert type(rewards[0]) is float
    assert boxed_format_reward([]) == []


@pytest.mark.parametrize("name", TRL_REWARDS + TRL_REWARD_FACTORIES)
def test_rewards_of_trl_are_those_of_trl(name):
    assert getattr(trl_entropy.rewards, name) is getattr(trl.rewards, name)


@pytest.mark.parametrize("name", ["accuracy", "trl", "get_reward", "__wrong__"])
def test_unknown_name_is_refused(name):
    message = f"module 'trl_entropy.rewards' has no attribute '{name}'"
    with pytest.raises(AttributeError, match=message):
        getattr(trl_entropy.rewards, name)
    with pytest.raises(ImportError, match=name):
        exec(f"from trl_entropy.rewards import {name}", {})


def test_rewards_load_without_trl_torch_and_sympy():
    script = "import sys, trl_entropy.rewards; print(*{'trl', 'torch', 'sympy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
