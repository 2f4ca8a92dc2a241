"""Rollouts that an environment has a part in: the rewards are told who wrote what."""

from functools import partial, update_wrapper

import pytest
from toy import build_trainer, number, sums
from trl import GRPOTrainer

from trl_entropy import EntropyGRPOTrainer
from trl_entropy.measures import step
from trl_entropy.rewards import last_number_reward


def rollout_func(prompts, trainer) -> dict:
    """The policy writes `a99`, the environment `=` and the solution, the policy `b`."""

    def ids(text: str) -> list[int]:
        return trainer.processing_class(text)["input_ids"]

    parts = [(ids("a99"), ids(f"={number(prompt)}"), ids("b")) for prompt in prompts]
    return {
        "prompt_ids": [ids(prompt) for prompt in prompts],
        "completion_ids": [[*first, *theirs, *last] for first, theirs, last in parts],
        "logprobs": None,
        "env_mask": [[1] * len(first) + [0] * len(theirs) + [1] * len(last) for first, theirs, last in parts],
        "turns": [2] * len(prompts),
    }


class Told:
    """A reward that keeps what it was called with."""

    __name__ = "told"
    reads_rollout = True

    def __init__(self):
        self.calls = []

    def __call__(self, completions, **kwargs):
        self.calls.append({"completions": completions, **kwargs})
        return [float(place % 2) for place, _ in enumerate(completions)]


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
@pytest.mark.parametrize("plain", [False, True])
def test_text_of_the_environment_is_not_graded(model_dir, tmp_path, plain, monkeypatch):
    answers = []
    monkeypatch.setattr(step, "votes", lambda given, size: answers.append(given) or {})
    settings = {} if plain else {"entropy_measures": "full"}
    told = Told()
    trainer = build_trainer(
        *(model_dir, sums(), tmp_path, plain),
        reward_funcs=[last_number_reward, told],
        rollout_func=rollout_func,
        max_steps=1,
        **settings,
    )
    trainer.train()
    (call,) = told.calls
    numbers = [number(prompt) for prompt in call["prompts"]]
    assert call["completions"] == [f"a99={n}b" for n in numbers]
    assert call["turns"] == [2] * 8
    reward = trainer.state.log_history[0]["rewards/last_number_reward/mean"]
    if plain:  # TRL hands over the text alone
        assert reward == 1.0
        assert "env_mask" not in call
        return
    assert reward == 0.0
    assert call["policy_text"] == ["b"] * 8
    assert call["env_mask"] == [[1] * 3 + [0] * (1 + len(str(n))) + [1] for n in numbers]
    assert answers == [[None] * 8]


class WithTool(GRPOTrainer):
    """What the policy writes is a call; the tool writes the solution, and no turn follows."""

    def _generate(self, prompts):
        self.tools, tools = [], self.tools
        outputs = list(super()._generate(prompts))
        self.tools = tools
        outputs[2] = [[1] + [0] * (len(ids) - 1) for ids in outputs[1]]
        answers = [{"role": "tool", "content": str(number(prompt))} for prompt in prompts]
        outputs[3] = [[{"role": "assistant", "tool_calls": []}, answer] for answer in answers]
        return tuple(outputs)


class EntropyWithTool(EntropyGRPOTrainer, WithTool):
    """The package's trainer with that tool."""


def test_text_of_a_tool_is_not_graded(build):
    told = Told()
    trainer = build(trainer_class=EntropyWithTool, reward_funcs=[last_number_reward, told], max_steps=1)
    trainer.tools = [print]
    trainer.train()
    assert trainer.state.log_history[0]["rewards/last_number_reward/mean"] == 0.0
    (call,) = told.calls
    assert call["env_mask"] == [[1] + [0] * (len(ids) - 1) for ids in call["completion_ids"]]
    assert call["policy_text"] is None


def test_rewards_are_told_their_group(build, dataset):
    told = Told()
    trainer = build(
        reward_funcs=told,
        max_steps=1,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
        eval_dataset=dataset.select(range(2)),
    )
    trainer.train()
    trainer.evaluate()
    training, evaluation = told.calls
    assert training["rollout_group"] == [0] * 4 + [1] * 4
    assert evaluation["rollout_group"] == [0] * 2 + [1] * 2
    assert training["policy_text"] is training["env_mask"] is None


def test_columns_of_a_dataset_reach_rewards_that_do_not_ask_and_are_not_graded(model_dir, tmp_path):
    seen = []

    def own(completions, rollout_group, policy_text, **kwargs):
        seen.append((rollout_group, policy_text, "env_mask" in kwargs))
        return [0.0] * len(completions)

    solutions = sums()["solution"]
    columns = sums().add_column("rollout_group", [f"g{n}" for n in solutions]).add_column("policy_text", solutions)
    trainer = build_trainer(model_dir, columns, tmp_path, reward_funcs=[own, last_number_reward], max_steps=1)
    trainer.train()
    ((groups, texts, told_of_mask),) = seen
    assert groups == [f"g{n}" for n in texts]
    assert not told_of_mask
    # random completions are not the solution, which the column holds
    assert trainer.state.log_history[0]["rewards/last_number_reward/mean"] < 1.0


def test_async_and_partial_rewards_may_ask(build):
    calls = []

    async def later(completions, rollout_group, **kwargs):
        calls.append(rollout_group)
        return [0.0] * len(completions)

    def scaled(completions, scale, rollout_group, **kwargs):
        calls.append(rollout_group)
        return [scale] * len(completions)

    later.reads_rollout = scaled.reads_rollout = True
    rewards = [later, update_wrapper(partial(scaled, scale=0.5), scaled)]
    build(reward_funcs=rewards, max_steps=1).train()
    assert calls == [[0] * 4 + [1] * 4] * 2
