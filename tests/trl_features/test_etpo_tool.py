"""ETPO and GRPO on an environment whose steps are tool calls, by TRL's own loop."""

import pytest
from alone import of_policy
from datasets import Dataset
from test_tools import CHAT, RESPONSE, pytestmark  # noqa: F401
from toy import build_trainer, logged
from transformers import AutoTokenizer

from trl_entropy.etpo import EtpoConfig, EtpoTrainer, as_messages, as_tool


CALL = {"type": "function", "function": {"name": "submit", "arguments": {"text": "{letter}"}}}


class Letters:
    """The reward is 1 for an `a`, which ends the episode, and -0.5 for another letter."""

    def reset(self, row) -> str:
        return row["prompt"]

    def step(self, text: str) -> tuple[str, float, bool]:
        return "0 - 1", 1.0 if text == "a" else -0.5, text == "a"


@pytest.fixture
def build_chat(model_dir, tmp_path):
    def make(**settings):
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        calls = {**RESPONSE["fields"]["tool_calls"], "transform": CALL}
        tokenizer.chat_template = CHAT
        tokenizer.response_template = {**RESPONSE, "fields": {**RESPONSE["fields"], "tool_calls": calls}}
        dataset = Dataset.from_dict({"prompt": [f"{number}" for number in range(16)]}).map(as_messages)
        settings = {
            "reward_funcs": None,
            "environment_factory": as_tool(Letters),
            "processing_class": tokenizer,
            "max_completion_length": 24,
            "max_tool_calling_iterations": 3,
            "generation_kwargs": {"sequence_bias": [[[1], 2.0]]},  # short turns
            **settings,
        }
        return build_trainer(model_dir, dataset, tmp_path, **settings)

    return make


def test_rewards_stand_at_the_ends_of_turns(build_chat):
    settings = {"trainer_class": EtpoTrainer, "config_class": EtpoConfig, "learning_rate": 0.0, "max_steps": 1}
    trainer = build_chat(**settings)
    seen = []
    prepared, trainer.prepared_batch = trainer.prepared_batch, lambda *given: seen.append(given) or prepared(*given)
    trainer.train()
    ((batch, rewards),) = seen
    mask = of_policy(batch)
    ends = mask & ~mask.roll(-1, 1)
    ends[:, -1] = mask[:, -1]
    assert not rewards[~ends].any()
    assert {*rewards[ends].tolist()} >= {-0.5, 0.0}
    assert [row.rewards for row in trainer.environments] == [
        [value for value in row.tolist() if value] for row in rewards
    ]
    assert rewards.sum().item() / 8 == pytest.approx(logged(trainer, "reward")[0])
    assert rewards.count_nonzero() >= 8
    assert logged(trainer, "etpo/q_loss")


def test_grpo_has_the_sum_as_reward(build_chat):
    trainer = build_chat(learning_rate=0.0, max_steps=1)
    trainer.train()
    assert logged(trainer, "rewards/ToolEnvironment/mean") == logged(trainer, "reward")
    assert logged(trainer, "reward")[0] == pytest.approx(sum(sum(one.rewards) for one in trainer.environments) / 8)
