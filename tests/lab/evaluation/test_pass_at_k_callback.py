"""Evaluation inside of training, on TRL's trainer and on the package's."""

import math

import pytest
from toy import logged, parameters, same
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback

import trl_entropy
from trl_entropy import PassAtKCallback
from trl_entropy.data.problems import problems_of
from trl_entropy.lab.evaluation.metrics import scores
from trl_entropy.lab.evaluation.model import encode
from trl_entropy.lab.evaluation.sampling import Policy, Sampling, all_ids
from trl_entropy.lab.evaluation.scoring import graded_lines, samples_of
from trl_entropy.rewards import LastNumberReward, MathVerifyReward


LAST = {"reward": LastNumberReward()}
EVALUATION = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4, "num_generations_eval": 2}


@pytest.fixture
def train(build, dataset):
    """Train with an attached callback: `train(settings, **arguments)` gives the trainer."""

    def make(settings: dict, **arguments):
        if "eval_strategy" in arguments:
            arguments["eval_dataset"] = dataset.select(range(2))
        trainer = build(**{"plain": True, **arguments})
        PassAtKCallback(dataset.select(range(6)), **{**LAST, "num_samples": 4, **settings}).attach(trainer)
        trainer.train()
        return trainer

    return make


def by_hand(model_dir: str, dataset, sampling: Sampling, reward) -> dict[str, float]:
    """The scores of a saved model, without the callback."""
    policy = Policy(AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir))
    problems = problems_of(dataset)
    prompts = encode([problem.prompt for problem in problems], policy.tokenizer, "plain")
    ids = all_ids(len(problems), sampling.num_samples)
    batches = graded_lines(policy, prompts, problems, ids, sampling, reward)
    lines = sorted((line for batch in batches for line in batch), key=lambda line: line.id)
    table = scores(samples_of(lines, sampling.num_samples, reward.verifier), resamples=2)
    return {name: score.value for name, score in table.items()}


@pytest.mark.parametrize("plain", [True, False])
def test_values_are_logged_every_so_many_steps(train, plain):
    trainer = train({"every": 2}, plain=plain, max_steps=5)
    rows = [row for row in trainer.state.log_history if "eval_pass@4" in row]
    assert [row["step"] for row in rows] == [2, 4]
    names = {"eval_avg@4", "eval_pass@1", "eval_maj@4", "eval_self_bleu", "eval_ece_logprob", "eval_response_entropy"}
    assert names <= rows[0].keys()
    assert "eval_avg@1" not in rows[0]  # that of any k
    for row in rows:
        assert row["eval_avg@4"] == pytest.approx(row["eval_pass@1"])
        assert 0 <= row["eval_pass@1"] <= row["eval_pass@2"] <= row["eval_pass@4"] <= 1


def test_values_are_those_of_the_evaluation_on_the_saved_model(train, build, dataset, model_dir):
    callback = PassAtKCallback(dataset.select(range(6)), every=1, **LAST, num_samples=4, temperature=0.7, seed=3)
    callback.attach(build(plain=True))
    found = callback.evaluate()
    sampling = Sampling(4, temperature=0.7, max_new_tokens=6, seed=3)  # the trainer's max_completion_length
    expected = by_hand(model_dir, dataset.select(range(6)), sampling, LAST["reward"])
    for name, value in found.items():
        assert value == pytest.approx(expected[name.removeprefix("eval_")], abs=1e-9, nan_ok=True)
    assert len(found) > 15


def test_value_that_is_not_defined_is_not_logged(train):
    trainer = train({"every": 1, "reward": MathVerifyReward()}, max_steps=1)  # nothing is ever boxed, so all is wrong
    (row,) = [row for row in trainer.state.log_history if "eval_pass@4" in row]
    assert row["eval_pass@4"] == 0
    assert "eval_auroc_vote" not in row
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, PassAtKCallback))
    assert math.isnan(callback.evaluate()["eval_auroc_vote"])


def test_training_and_its_log_are_those_without_the_callback(train, run):
    for plain in (True, False):
        arguments = {"plain": plain, "max_steps": 3, "temperature": 0.9}
        evaluated, alone = train({"every": 1}, **arguments), run(**arguments)
        assert same(parameters(evaluated), parameters(alone))
        for name in ("loss", "entropy", "completions/mean_length"):
            assert logged(evaluated, name) == logged(alone, name)
        assert len(logged(evaluated, "loss")) == 3
        assert len(logged(evaluated, "eval_pass@4")) == 3


def test_trainer_keeps_the_best_model_by_a_value(train):
    trainer = train(
        {}, **EVALUATION, save_strategy="steps", save_steps=1, metric_for_best_model="response_entropy",
        load_best_model_at_end=True, greater_is_better=True,
    )  # fmt: skip
    values = logged(trainer, "eval_response_entropy")
    assert len(values) == 3
    assert len(set(values)) == 3
    assert trainer.state.best_metric == max(values)
    best = values.index(max(values)) + 1
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    # and that is the model at the end
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, PassAtKCallback))
    assert callback.evaluate()["eval_response_entropy"] == pytest.approx(max(values))


def test_without_the_callback_trl_knows_no_such_metric(run, dataset):
    with pytest.raises(KeyError, match="eval_response_entropy"):
        run(plain=True, **EVALUATION, eval_dataset=dataset.select(range(2)), metric_for_best_model="response_entropy")


def test_early_stopping_that_was_there_before_reads_the_value(train):
    stop = EarlyStoppingCallback(early_stopping_patience=1)
    # nothing is ever boxed: pass@4 is 0 at the first evaluation, and does not get better at the second
    trainer = train(
        {"reward": MathVerifyReward()}, **EVALUATION, callbacks=[stop], max_steps=5, save_strategy="steps",
        save_steps=1, metric_for_best_model="pass@4", load_best_model_at_end=True,
    )  # fmt: skip
    assert logged(trainer, "eval_pass@4") == [0.0, 0.0]
    assert trainer.state.global_step == 2


def test_callback_that_was_given_to_the_trainer_is_called_once(build, dataset):
    callback = PassAtKCallback(dataset.select(range(2)), every=1, **LAST, num_samples=1)
    trainer = build(plain=True, callbacks=[callback], max_steps=1)
    assert callback.attach(trainer) is callback
    assert trainer.callback_handler.callbacks[0] is callback
    trainer.train()
    assert len(logged(trainer, "eval_pass@1")) == 1


def test_conversations_go_through_the_chat_template_as_in_training(build, dataset):
    conversations = dataset.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    template = (
        "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ '' if mark is not defined else mark }}"
    )
    found = []
    for kwargs in ({}, {"chat_template_kwargs": {"mark": "5"}}):
        callback = PassAtKCallback(conversations.select(range(4)), every=1, **LAST, num_samples=2)
        trainer = build(plain=True, **kwargs)
        trainer.processing_class.chat_template = template
        found.append(callback.attach(trainer).evaluate()["eval_prompt_entropy"])
    plain = PassAtKCallback(dataset.select(range(4)), every=1, **LAST, num_samples=2).attach(build(plain=True))
    assert found[0] == plain.evaluate()["eval_prompt_entropy"] != found[1]


# Wrong use


def test_wrong_settings_are_refused(dataset):
    with pytest.raises(ValueError, match="every must be a whole number >= 1, got 0"):
        PassAtKCallback(dataset, every=0)
    with pytest.raises(ValueError, match="num_samples must be a whole number >= 1, got 0"):
        PassAtKCallback(dataset, num_samples=0)
    with pytest.raises(ValueError, match="max_new_tokens must be a whole number >= 1, got 0"):
        PassAtKCallback(dataset, max_new_tokens=0)
    with pytest.raises(ValueError, match="unknown dataset column 'solution'"):
        PassAtKCallback(dataset.remove_columns("solution"))


@pytest.mark.parametrize("column", ["image", "images"])
def test_problems_with_images_are_refused(dataset, column):
    pictures = dataset.add_column(column, ["x"] * len(dataset))
    with pytest.raises(
        ValueError, match=f"^only the text .*, but the dataset has images: drop the column '{column}'$"
    ):
        PassAtKCallback(pictures)
    content = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    inside = dataset.map(lambda row: {"prompt": [{"role": "user", "content": content}]})
    with pytest.raises(
        ValueError, match="^only the text of a problem is used, but row 0 of the dataset has an image: drop the image$"
    ):
        PassAtKCallback(inside)


def test_callback_that_would_do_nothing_is_refused(build, dataset):
    trainer = build(plain=True)
    PassAtKCallback(dataset).attach(trainer)
    with pytest.raises(ValueError, match="nothing would be evaluated: set every in PassAtKCallback"):
        trainer.train()
    with pytest.raises(ValueError, match=r"call attach\(trainer\) before trainer.train\(\)"):
        build(plain=True, callbacks=[PassAtKCallback(dataset, every=1)]).train()


def test_only_one_trainer_of_the_right_kind_is_taken(build, dataset):
    callback = PassAtKCallback(dataset, every=1)
    with pytest.raises(
        TypeError, match="attach takes a GRPOTrainer, RLOOTrainer, GMPOTrainer or AsyncGRPOTrainer, got str"
    ):
        callback.attach("trainer")
    trainer = build(plain=True)
    callback.attach(trainer)
    assert callback.attach(trainer) is callback
    with pytest.raises(ValueError, match="the PassAtKCallback is already attached: make one per trainer"):
        callback.attach(build(plain=True))
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="does not work under FSDP"):
        PassAtKCallback(dataset, every=1).attach(trainer)


def test_callback_is_exported():
    assert trl_entropy.PassAtKCallback is PassAtKCallback
