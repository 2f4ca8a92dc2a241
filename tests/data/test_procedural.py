import json

import pytest

from trl_entropy.commands.procedural import draw_problems
from trl_entropy.rewards import reasoning_gym_reward


pytest.importorskip("reasoning_gym")
SHORT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def test_problems_are_sums_with_their_solution_and_origin():
    train, _ = draw_problems("chain_sum", SHORT, seed=1, train_size=20)
    assert len(train) == 20
    for row in train:
        expression = row["prompt"].split(": ")[1].removesuffix(" =")
        assert eval(expression) == int(row["solution"])
        assert json.loads(row["reasoning_gym"])["task"] == "chain_sum"
    boxed = [rf"\boxed{{{row['solution']}}}" for row in train]
    assert reasoning_gym_reward(boxed, train["reasoning_gym"]) == [1.0] * 20


def test_held_out_problems_are_different_and_not_in_train():
    train, test = draw_problems("chain_sum", SHORT, seed=1, train_size=100, test_size=30)
    assert len(set(test["prompt"])) == len(test) == 30
    assert not set(test["prompt"]) & set(train["prompt"])
    assert len(train) == 100


def test_seed_decides():
    first, again, other = (draw_problems("chain_sum", {}, seed, 30)[0].to_list() for seed in (0, 0, 1))
    assert first == again
    assert not {row["prompt"] for row in first} & {row["prompt"] for row in other}


def test_task_with_many_solutions_has_none():
    train, _ = draw_problems("graph_color", {}, seed=0, train_size=2)
    assert train["solution"][:] == ["", ""]


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("chain_som", {}, "unknown task of reasoning-gym 'chain_som'. Did you mean 'chain_sum'"),
        ("chain_sum", {"terms": 2}, "the task 'chain_sum' of reasoning-gym does not accept"),
        ("chain_sum", {"min_terms": 0}, "the task 'chain_sum' of reasoning-gym does not accept"),
        ("word_ladder", {}, "the task 'word_ladder' of reasoning-gym gives different problems each time"),
    ],
)
def test_wrong_tasks_are_refused(name, settings, line):
    with pytest.raises(ValueError, match=line):
        draw_problems(name, settings, seed=0, train_size=2)


def test_too_few_different_problems_are_refused():
    with pytest.raises(ValueError, match="too few different problems to hold out 200"):
        draw_problems("chain_sum", SHORT, seed=0, train_size=10, test_size=200)
