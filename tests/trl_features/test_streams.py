"""Problems that are streamed, for training and for evaluation."""

import pytest
from alone import (
    EVERYTHING,
    WEIGHTS,
    as_trl,
    assert_everything_acts,
    assert_measured_of_policy,
    assert_trained_as_trl,
    training,
)
from toy import build_trainer, logged, parameters, same, sums
from trl.trainer import grpo_trainer


pytestmark = pytest.mark.skipif(
    not hasattr(grpo_trainer, "repeat_iterable_dataset"), reason="this TRL takes no iterable dataset"
)


@pytest.fixture
def build_stream(model_dir, tmp_path):
    def make(streams=True, **settings):
        problems = sums().to_iterable_dataset() if streams else sums()
        settings = {"eval_dataset": problems.take(4), "eval_strategy": "steps", "eval_steps": 2, **settings}
        return build_trainer(model_dir, problems, tmp_path, **settings)

    return make


@pytest.fixture
def run_stream(build_stream):
    return training(build_stream)


@as_trl
def test_training_with_neutral_settings_is_that_of_trl(run_stream, settings, neutral):
    splits = {"num_generations_eval": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trl, ours = run_stream(plain=True, **splits, **settings), run_stream(**splits, **settings, **neutral)
    assert_trained_as_trl(trl, ours)
    assert logged(ours, "eval_reward")


def test_everything_acts(run_stream, build_stream):
    assert_everything_acts(run_stream(**EVERYTHING), parameters(build_stream()))


def test_measures_are_of_the_trained_batch(run_stream):
    settings = {"entropy_measures": "full", "temperature": 0.8, "learning_rate": 0.0, "max_steps": 1}
    assert_measured_of_policy(run_stream(**WEIGHTS, **settings))


def test_training_is_that_on_the_dataset_in_its_order(run_stream):
    settings = {"shuffle_dataset": False, "eval_strategy": "no", **EVERYTHING}
    streamed, listed = run_stream(**settings), run_stream(streams=False, **settings)
    assert same(parameters(streamed), parameters(listed))
    assert logged(streamed, "entropy/positive_advantage") == logged(listed, "entropy/positive_advantage")


@pytest.mark.parametrize("rule", ["curriculum", "perplexity_window", "dynamic_sampling"])
def test_rules_that_choose_problems_are_refused(build_stream, rule):
    settings = {"column": "hard"} if rule == "curriculum" else {}
    with pytest.raises(
        ValueError, match=rf"^rollout_rules\.{rule} chooses among all problems, and the train dataset is"
    ):
        build_stream(rollout_rules={rule: settings})
