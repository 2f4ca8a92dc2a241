"""The rules of a run together: who decides first, what is remembered, and what a checkpoint holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from trl_entropy.rollouts import (
    Curriculum,
    DynamicSampling,
    OfflineInjection,
    PerplexityWindow,
    PromptTemperature,
    RolloutPlan,
    RolloutRule,
)
from trl_entropy.rollouts.plan import key_of
from trl_entropy.rollouts.rule import GROUPS, TEMPERATURES
from trl_entropy.rollouts.stream import ProblemStream


COLUMNS = {"hard": [5.0, 0.0, 3.0, 1.0, 4.0, 2.0, 7.0, 6.0]}  # of eight problems
EASY, HARD = [1, 3, 5, 2], [4, 0, 7, 6]


def plan(*rules: RolloutRule, seed: int = 3) -> RolloutPlan:
    return RolloutPlan({str(number): rule for number, rule in enumerate(rules)}, 8, COLUMNS.__getitem__, seed)


def unread(problems) -> Sequence[float]:
    raise AssertionError("no rule reads perplexities")


def own_place(problems) -> Sequence[float]:
    """A stand-in for perplexities: the problem's place."""
    return [float(problem) for problem in problems]


def test_plan_without_rules_decides_nothing():
    empty = RolloutPlan({}, 0, {}.__getitem__, 0)
    assert not empty.chooses_problems
    assert not empty.sets_temperatures
    assert not empty.replaces_completions
    assert not empty.keeps_groups
    assert empty.rounds == 0
    assert empty.temperatures(["1=", "2="], 0.7) == [0.7, 0.7]
    assert empty.solutions({"prompt": "1="}) == []
    assert empty.keep(torch.zeros(2, 3), {}).all()
    assert not empty.replace(torch.zeros(2, 3)).any()


@pytest.mark.parametrize(
    ("rule", "decided"),
    [
        (Curriculum(column="hard"), {"chooses_problems"}),
        (PerplexityWindow(), {"chooses_problems"}),
        (DynamicSampling(), {"chooses_problems", "keeps_groups"}),
        (PromptTemperature(), {"sets_temperatures"}),
        (OfflineInjection(), {"replaces_completions"}),
    ],
)
def test_what_each_rule_decides(rule, decided):
    given = plan(rule)
    names = {"chooses_problems", "sets_temperatures", "replaces_completions", "keeps_groups"}
    assert {name for name in names if getattr(given, name)} == decided


# Problems


def test_problems_without_a_choice_are_those_of_the_stream():
    given, stream = plan(DynamicSampling()), ProblemStream(list(range(8)), seed=3)
    assert [given.problems(3, 0.0, unread) for _ in range(9)] == [(stream.take(3), {}) for _ in range(9)]


def test_stages_come_one_after_another():
    given = plan(Curriculum(column="hard"))
    taken = [given.problems(2, progress, unread) for progress in (0.0, 0.25, 0.5, 0.75)]
    assert [means for _, means in taken] == [{"stage": 0}, {"stage": 0}, {"stage": 1}, {"stage": 1}]
    problems = [problems for problems, _ in taken]
    assert sorted(problems[0] + problems[1]) == sorted(EASY)
    assert sorted(problems[2] + problems[3]) == sorted(HARD)


def test_stage_of_so_many_passes_is_left_after_them():
    given = plan(Curriculum(column="hard", epochs=2))
    stages = [given.problems(4, 0.0, unread)[1]["stage"] for _ in range(5)]
    assert stages == [0, 0, 1, 1, 1]


def test_window_is_taken_from_the_candidates():
    # all eight are candidates; floor(0.5 * 6) = 3
    given = plan(PerplexityWindow(share=0.25))
    problems, means = given.problems(2, 0.5, own_place)
    assert problems == [3, 4]
    assert means == {"perplexity": 3.5, "perplexity_of_candidates": 3.5}
    assert given.problems(2, 1.0, own_place) == ([6, 7], {"perplexity": 6.5, "perplexity_of_candidates": 3.5})


def test_candidates_are_of_the_stage_and_no_more_than_it_has():
    # the least of HARD, in places and so in perplexity
    given = plan(Curriculum(column="hard"), PerplexityWindow(share=0.1))
    assert given.problems(1, 0.0, own_place)[0] == [1]
    problems, means = given.problems(1, 0.5, own_place)
    # floor(0.5 * 3) = 1 of 0, 4, 6, 7
    assert problems == [4]
    assert means == {"stage": 1, "perplexity": 4.0, "perplexity_of_candidates": 17 / 4}


@pytest.mark.parametrize(("share", "count"), [(1.0, 2), (0.5, 8)])
def test_window_on_all_there_is_does_not_look_at_perplexities(share, count):
    problems, means = plan(PerplexityWindow(share=share)).problems(count, 0.5, unread)
    assert len(set(problems)) == count
    assert means == {}


def test_two_rules_with_stages_are_refused():
    with pytest.raises(ValueError, match="only one rule can split the problems into stages, and 2 do: keep one"):
        plan(Curriculum(column="hard"), Curriculum(column="hard", count=3))


def test_stages_have_streams_of_their_own():
    given = plan(Curriculum(column="hard"))
    expected = [ProblemStream(EASY, 3), ProblemStream(HARD, 3 + 1_000_003)]
    for stream, progress in zip(expected, (0.0, 0.5), strict=True):
        assert given.problems(3, progress, unread)[0] == stream.take(3)


# Temperatures


@dataclass(frozen=True)
class Doubled(RolloutRule):
    """Twice the temperature for prompts that were visited."""

    acts: ClassVar[frozenset[str]] = frozenset({TEMPERATURES})

    def temperature(self, memory, key, temperature):
        return 2 * temperature if key in memory else temperature

    def visited(self, memory, key, rewards, temperature):
        return {**memory, key: float(rewards.sum())}


def test_temperatures_follow_the_groups_of_each_prompt():
    given = plan(PromptTemperature(step=0.1))
    given.visited(["1=", "2="], torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 1.0)
    assert given.temperatures(["1=", "1=", "2=", "3="], 1.0) == [1.1, 1.1, 1.0, 1.0]
    given.visited(["2=", "1=", "1="], torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), 0.5)
    assert given.temperatures(["1=", "2="], 0.5) == [0.6, 0.6]


def test_rules_set_temperatures_one_after_another_with_memories_of_their_own():
    given = plan(PromptTemperature(step=0.1), Doubled())
    given.visited(["1=", "2="], torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 1.0)
    assert given.temperatures(["1=", "2=", "3="], 1.0) == [2.2, 2.0, 1.0]
    assert given.memory == {"0": {key_of("1="): 1}, "1": {key_of("1="): 2.0, key_of("2="): 1.0}}


def test_key_of_a_prompt_is_that_of_its_content():
    message = {"role": "user", "content": "1="}
    assert key_of([message]) == key_of([{"content": "1=", "role": "user"}])
    assert len({key_of("1="), key_of("2="), key_of([message]), key_of([message, message])}) == 4


# Completions and groups


def test_solutions_are_a_text_or_a_list():
    given = plan(OfflineInjection(column="stored"))
    assert given.solutions({"stored": ["a", "b"]}) == ["a", "b"]
    assert given.solutions({"stored": "a"}) == ["a"]
    assert given.solutions({"stored": None}) == given.solutions({"stored": []}) == []


def test_one_rule_that_lets_a_completion_go_is_enough():
    # shares of correct completions: 0, 1/2
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    both = plan(OfflineInjection(most=1), OfflineInjection(column="more", accuracy=0.5))
    assert both.replace(rewards).tolist() == [[True, True], [True, False]]
    assert both.solutions({"solutions": "a", "more": ["b"]}) == ["a", "b"]


def test_rule_is_asked_about_the_rewards_of_the_function_that_it_names():
    total, verified = torch.tensor([[0.9, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    by_function = {"verified": verified, "length": total - verified}
    assert plan(DynamicSampling()).keep(total, by_function).tolist() == [True, True]
    assert plan(DynamicSampling(by="verified")).keep(total, by_function).tolist() == [False, True]
    assert plan(DynamicSampling(by="length")).keep(total, by_function).tolist() == [True, False]


@dataclass(frozen=True)
class First(RolloutRule):
    """Keep groups whose first reward is 1."""

    acts: ClassVar[frozenset[str]] = frozenset({GROUPS})

    def keep(self, rewards):
        return rewards[:, 0] == 1

    @property
    def rounds(self) -> int:
        return 9


def test_group_has_to_please_all_rules():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    given = plan(DynamicSampling(max_rounds=2), First())
    assert given.keep(rewards, {}).tolist() == [True, False, False]
    assert given.rounds == 9
    assert plan(First()).chooses_problems  # to sample others in place of the rest


# State


ALL_RULES = (Curriculum(column="hard"), PerplexityWindow(share=0.5), DynamicSampling(), PromptTemperature())


def after_some_rollouts(given: RolloutPlan, count: int = 3) -> RolloutPlan:
    for number in range(count):
        given.begin()
        given.problems(2, number / 6, own_place)
        given.problems(1, number / 6, own_place)
        given.visited(["1=", "2="], torch.tensor([[1.0, 1.0], [1.0, float(number)]]), 1.0)
    return given


def saved(given: RolloutPlan, unfinished: bool = False) -> dict:
    """The state as a checkpoint holds it."""
    return json.loads(json.dumps(given.state_dict(unfinished)))


def test_plan_goes_on_where_it_was_saved():
    given, restored = after_some_rollouts(plan(*ALL_RULES)), plan(*ALL_RULES)
    restored.load_state_dict(saved(given), "there")
    assert restored.temperatures(["1=", "2=", "3="], 1.0) == given.temperatures(["1=", "2=", "3="], 1.0)
    ahead = [given.problems(2, 0.4 + number / 10, own_place) for number in range(6)]
    assert [restored.problems(2, 0.4 + number / 10, own_place) for number in range(6)] == ahead
    assert saved(restored) == saved(given)


def test_unfinished_rollout_is_sampled_again():
    given, restored = plan(DynamicSampling()), plan(DynamicSampling())
    for _ in range(2):
        given.begin()
        rounds = [given.problems(count, 0.0, unread)[0] for count in (3, 1)]
    restored.load_state_dict(saved(given, unfinished=True), "there")
    restored.begin()
    assert [restored.problems(count, 0.5, unread)[0] for count in (3, 1)] == rounds
    # then on, as if nothing had been
    assert restored.problems(3, 0.5, unread) == given.problems(3, 0.5, unread)


def test_rollout_that_is_sampled_again_is_still_unfinished():
    given, restored = after_some_rollouts(plan(*ALL_RULES)), plan(*ALL_RULES)
    state = saved(given, unfinished=True)
    assert len(state["unfinished"]) == 2
    restored.load_state_dict(state, "there")
    restored.begin()
    restored.problems(2, 0.5, own_place)
    restored.problems(1, 0.5, own_place)
    assert saved(restored, unfinished=True)["unfinished"] == state["unfinished"]


def test_finished_rollout_is_not_sampled_again():
    assert saved(after_some_rollouts(plan(*ALL_RULES)))["unfinished"] == []


def test_checkpoint_without_a_state_is_refused():
    with pytest.raises(ValueError, match="there has no state of rollout_rules 0: resume without them"):
        plan(DynamicSampling()).load_state_dict(None, "there")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([Curriculum(column="hard")], [Curriculum(column="hard", count=4)]),
        ([DynamicSampling()], [OfflineInjection()]),
        ([PromptTemperature()], [OfflineInjection()]),
        ([], [PerplexityWindow()]),
    ],
)
def test_checkpoint_of_other_rules_is_refused(written, read):
    with pytest.raises(ValueError, match=r"there was written with other rollout_rules \(\d stages; memories: "):
        plan(*read).load_state_dict(saved(plan(*written)), "there")
