"""A `PeftModel` that is given to the trainer, instead of a `peft_config`."""

import pytest
import torch
from alone import (
    EVERYTHING,
    WEIGHTS,
    as_trl,
    assert_everything_acts,
    assert_measured_of_policy,
    assert_trained_as_trl,
    training,
)
from peft import LoraConfig, get_peft_model
from toy import build_trainer, parameters, sums
from transformers import AutoModelForCausalLM


ADAPTER = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}


@pytest.fixture
def build_given(model_dir, tmp_path):
    def make(**settings):
        torch.manual_seed(5)  # of the adapter
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), LoraConfig(**ADAPTER))
        return build_trainer(model, sums(), tmp_path, **settings)

    return make


@pytest.fixture
def run_given(build_given):
    return training(build_given)


@as_trl
def test_training_with_neutral_settings_is_that_of_trl(run_given, settings, neutral):
    assert_trained_as_trl(run_given(plain=True, **settings), run_given(**settings, **neutral))


@pytest.mark.parametrize("more", [{}, {"beta": 0.1, "rollout_rules": {"dynamic_sampling": {}}}])
def test_everything_acts_on_the_adapter_alone(run_given, build_given, more):
    before, trainer = parameters(build_given()), run_given(**EVERYTHING, **more)
    assert_everything_acts(trainer, before)
    changed = {name for name, value in parameters(trainer).items() if not torch.equal(value, before.get(name, value))}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_measures_are_of_the_policy_with_the_adapter(run_given):
    settings = {"entropy_measures": "full", "temperature": 0.8, "learning_rate": 0.0, "max_steps": 1}
    trainer = run_given(**WEIGHTS, **settings)
    assert_measured_of_policy(trainer)
    with torch.no_grad():
        for name, value in trainer.model.named_parameters():
            if ".lora_B." in name:
                value.zero_()
    with pytest.raises(AssertionError):
        assert_measured_of_policy(trainer)
