"""The knobs that TRL fixes when the trainer is made: turned, a run is that of TRL with the other setting."""

import pytest
import torch
from toy import EntropyGiven, logged, parameters, same
from transformers import TrainerCallback

from trl_entropy import SeamError
from trl_entropy._seam import set_temperature


def constant(knob: str, value: float) -> dict:
    return {"controllers": {"mine": {"law": "constant", "knob": knob, "value": value}}}


class Sampled(EntropyGiven):
    """Keeps the temperature of every generation and, of every training loss, of the scores."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generated, self.scored = [], []

    def _generate(self, *args, **kwargs):
        self.generated.append(self.generation_config.temperature)
        return super()._generate(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        self.scored.append(self.temperature)
        return super()._compute_loss(model, inputs)


# Temperature


@pytest.mark.parametrize("more", [{}, {"bf16": True}, {"beta": 0.1, "off_policy_updates": 2}])
def test_turned_temperature_gives_the_run_of_that_temperature(run, more):
    # sampled and scored at 0.7: the same tokens, entropies and updates
    given = run(temperature=0.7, **more)
    turned = run(**constant("temperature", 0.7), **more)
    assert same(parameters(turned), parameters(given))
    for name in ("entropy", "reward", "loss"):
        assert logged(turned, name) == logged(given, name)
    assert not same(parameters(given), parameters(run(**more)))


def test_temperature_changes_with_the_rollout_and_scores_are_of_the_same(run):
    spec = {"law": "schedule", "knob": "temperature", "start": 1.0, "end": 0.5}
    trainer = run(trainer_class=Sampled, controllers={"mine": spec}, max_steps=8, off_policy_updates=2)
    # after step k of 8: 1 - k / 16, read where the next rollout is generated
    assert trainer.generated == pytest.approx([1.0, 0.875, 0.75, 0.625])
    assert trainer.scored == [value for value in trainer.generated for _ in range(2)]
    assert logged(trainer, "knobs/temperature") == trainer.scored


def test_old_log_probs_are_of_the_policy_that_sampled(run):
    # with a learning rate of 0 the ratios of the second update are 1, at any temperature
    class Ratios(EntropyGiven):
        def observe(self, tokens, effective):
            super().observe(tokens, effective)
            self.__dict__.setdefault("ratios", []).append(tokens.ratios[tokens.mask])

    spec = {"law": "schedule", "knob": "temperature", "start": 1.0, "end": 0.5}
    trainer = run(
        trainer_class=Ratios, controllers={"mine": spec}, max_steps=8, off_policy_updates=2, learning_rate=0.0
    )
    ratios = torch.cat(trainer.ratios)
    assert torch.allclose(ratios, torch.ones_like(ratios), atol=1e-5)


def test_evaluation_does_not_change_the_temperature(run, dataset):
    spec = {"law": "schedule", "knob": "temperature", "start": 1.0, "end": 0.5}
    settings = {"controllers": {"mine": spec}, "max_steps": 4, "off_policy_updates": 2}
    evaluated = run(trainer_class=Sampled, eval_strategy="steps", eval_steps=1, eval_dataset=dataset, **settings)
    # after each of the steps 1 to 4 an evaluation, at the temperature of the rollout at hand
    assert set(evaluated.generated) == {1.0, 0.75}
    assert logged(evaluated, "knobs/temperature") == [1.0, 1.0, 0.75, 0.75]


def test_temperature_that_generation_kwargs_set_too_is_refused(build):
    with pytest.raises(ValueError, match=r"generation_kwargs sets temperature=0\.5, but a controller turns"):
        build(**constant("temperature", 0.7), generation_kwargs={"temperature": 0.5})
    build(generation_kwargs={"temperature": 0.5})


def test_model_whose_scores_cannot_be_found_is_refused(build):
    trainer = build()
    if not hasattr(trainer.model.forward, "__closure__") or "_fused" not in trainer.model.forward.__name__:
        from trl.trainer import grpo_trainer

        if not hasattr(grpo_trainer, "add_fused_lm_head"):
            pytest.skip("this TRL divides the logits itself")
    trainer.model.forward = type(trainer.model).forward.__get__(trainer.model)
    with pytest.raises(SeamError, match="not be scored at the temperature they were sampled at"):
        set_temperature(trainer, 0.5)


# Scale of the learning rate


def test_turned_scale_gives_the_run_of_that_learning_rate(run):
    settings = {"lr_scheduler_type": "linear", "optim": "adamw_torch"}
    given = run(learning_rate=5e-3, **settings)
    turned = run(learning_rate=1e-2, **settings, **constant("learning_rate_scale", 0.5))
    assert same(parameters(turned), parameters(given))
    # what is logged is the schedule's
    assert logged(turned, "learning_rate") == [2 * rate for rate in logged(given, "learning_rate")]
    assert logged(turned, "knobs/learning_rate_scale") == [0.5] * 3


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.mark.parametrize("knob", ["learning_rate_scale", "temperature"])
def test_resumed_run_is_the_uninterrupted_one(run, tmp_path, knob):
    spec = {"law": "schedule", "knob": knob, "start": 1.0, "end": 0.25}
    steps = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "controllers": {"mine": spec}}
    whole = run(output_dir=tmp_path / "whole", **steps)
    run(output_dir=tmp_path / "parts", callbacks=[StopAt(3)], **steps)
    resumed = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-3"), **steps)
    assert logged(resumed, f"knobs/{knob}") == logged(whole, f"knobs/{knob}")
    assert len(logged(whole, f"knobs/{knob}")) == 6
    assert same(parameters(resumed), parameters(whole))


def test_scale_of_the_learning_rate_asks_for_its_effect(build):
    spec = {"law": "pi", "knob": "learning_rate_scale", "target": 0.3}
    with pytest.raises(ValueError, match="whether a larger learning_rate_scale raises or lowers entropy; set raises_"):
        build(controllers={"mine": spec})
    build(controllers={"mine": {**spec, "raises_signal": False}})
