"""Tools and environments, called by TRL's own loop: a letter that the policy writes is a call."""

import pytest
from alone import (
    EVERYTHING,
    SELECTION,
    WEIGHTS,
    as_trl,
    assert_everything_acts,
    assert_loss_of_policy,
    assert_measured_of_policy,
    assert_trained_as_trl,
    measured_of_all,
    of_policy,
    training,
)
from datasets import Dataset
from toy import build_trainer, logged, parameters
from transformers import AutoTokenizer
from trl import chat_template_utils


pytestmark = [
    pytest.mark.skipif(
        not hasattr(chat_template_utils, "_SUPPORTS_RESPONSE_TEMPLATE"), reason="this TRL reads no response_template"
    ),
    pytest.mark.filterwarnings("ignore:You are using 'environment_factory'"),
]
# `=` begins a turn of the policy, `+` an answer to it
CHAT = """\
{%- for message in messages -%}
{%- if message.role == "assistant" -%}
={{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- endfor -%}
<eos>
{%- else -%}
{{ "+" if message.role == "tool" else "" }}{{ message.content }}
{%- endif -%}
{%- endfor -%}
{{ "=" if add_generation_prompt else "" }}"""
CALL = {"type": "function", "function": {"name": "weigh", "arguments": {"letter": "{letter}"}}}
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "=",
    "fields": {
        "tool_calls": {
            "open_pattern": r"(?P<letter>[a-f])",
            "repeats": True,
            "content": "text",
            "transform": CALL,
        },
        "content": {"close_pattern": "<eos>", "content": "text"},
    },
}


def weigh(letter: str) -> str:
    """
    The weight of a letter.

    Args:
        letter: A letter.
    """
    return f"{ord(letter)} - "


class Scale:
    """A scale that adds up what is put on it, and has a reward of its own."""

    def reset(self, **kwargs) -> str:
        self.sum = 0
        return "-4"

    def weigh(self, letter: str) -> str:
        """
        The weight of all letters until now.

        Args:
            letter: A letter.
        """
        self.sum += ord(letter)
        return f"{self.sum} - "

    def get_reward(self) -> float:
        return float(self.sum % 2)


def odd_sum(completion_ids, **kwargs) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


KINDS = {"tools": {"tools": [weigh]}, "environment": {"environment_factory": Scale}}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def problems() -> Dataset:
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": str(number)}] for number in range(16)]})


@pytest.fixture
def build_chat(model_dir, problems, tmp_path):
    def make(kind: str, dataset=problems, **settings):
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        tokenizer.chat_template, tokenizer.response_template = CHAT, RESPONSE
        settings = {
            "reward_funcs": odd_sum,
            "processing_class": tokenizer,
            "max_completion_length": 16,
            "generation_kwargs": {"sequence_bias": [[[1], 2.0]]},  # short turns
            **KINDS[kind],
            **settings,
        }
        return build_trainer(model_dir, dataset, tmp_path, **settings)

    return make


@pytest.fixture
def run_chat(build_chat):
    return training(build_chat)


def answers_between_turns(inputs: dict) -> int:
    """How many completions the policy goes on with after an answer."""
    mask = of_policy(inputs)
    answered = inputs["completion_mask"].bool() & ~mask
    return (answered.cumsum(1).bool() & mask).any(1).sum().item()


@every_kind
@as_trl
def test_training_with_neutral_settings_is_that_of_trl(run_chat, kind, settings, neutral):
    trl, ours = run_chat(kind, plain=True, **settings), run_chat(kind, **settings, **neutral)
    assert_trained_as_trl(trl, ours)
    assert answers_between_turns(ours._buffered_inputs[0]) >= 2
    assert logged(ours, "tools/call_frequency")[0] > 0.5
    if kind == "environment":
        assert logged(ours, "rewards/Scale/mean") == logged(trl, "rewards/Scale/mean")


@every_kind
def test_everything_acts(run_chat, build_chat, kind):
    splits = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert_everything_acts(run_chat(kind, **EVERYTHING, **splits), parameters(build_chat(kind)))


@every_kind
def test_measures_are_of_what_the_policy_wrote(run_chat, kind):
    settings = {"entropy_measures": "full", "temperature": 0.8, "learning_rate": 0.0, "max_steps": 1}
    trainer = run_chat(kind, **WEIGHTS, **settings)
    assert_measured_of_policy(trainer)
    last, of_all = trainer.measures.last, measured_of_all(trainer)
    # With the answers in it, each would be another one
    for name in ("entropy", "covariance/logp_advantage", "gradient_mass/negative", "share/unlikely_positive"):
        assert abs(last[name] - of_all[name]) > 1e-3, name


@every_kind
def test_loss_and_gradient_are_of_what_the_policy_wrote(run_chat, kind):
    rules = {"token_weights": SELECTION["token_weights"], "temperature": 0.8}
    assert_loss_of_policy(run_chat(kind, **WEIGHTS, **rules, learning_rate=0.0, max_steps=1))


def test_rows_that_only_name_their_environment(run_chat):
    class Other(Scale):
        """Another of the kind, whose rollouts are drawn from the same batch."""

    names = Dataset.from_dict({"environment": ["scale", "other"] * 8})
    evaluation = {"eval_dataset": names.select(range(2)), "eval_strategy": "steps", "eval_steps": 1}
    factories = {"environment_factory": {"scale": Scale, "other": Other}}
    settings = {"dataset": names, "max_steps": 2, **factories, **evaluation}
    trl, ours = run_chat("environment", plain=True, **settings), run_chat("environment", **settings)
    assert_trained_as_trl(trl, ours)
    rules = {"rollout_rules": {"dynamic_sampling": {"max_rounds": 1}}}
    assert logged(run_chat("environment", **EVERYTHING | rules | settings), "rollout/groups_sampled")
