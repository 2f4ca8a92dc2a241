"""Less computed in an optimizer step: the same gradient, the same measures; and refused where it would not be."""

import pytest
import torch
from test_resume import StopAt
from toy import LOSS_TYPES, EntropyGiven, distance, few, halves, logged, parameters

from trl_entropy import EntropyGRPOConfig


# Half of the groups have no advantage; two optimizer steps of four micro-batches for each rollout
SETTINGS = {
    **{"trainer_class": EntropyGiven, "reward_funcs": halves, "max_steps": 4, "optim": "sgd", "max_grad_norm": 0.0},
    **{"learning_rate": 0.3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    **{"off_policy_updates": 2, "max_completion_length": 12},
}
WAYS = {
    "trim": {"trim_padding": True},
    "sort": {"trim_padding": True, "sort_by_length": True},
    "skip": {"skip_zero_advantage": True},
    "all": {"fast_step": True},
}
EXACT = tuple(loss for loss in LOSS_TYPES if loss != "bnpo")


def weights(trainer) -> torch.Tensor:
    return torch.cat([value.flatten() for value in parameters(trainer).values()]).double()


@pytest.fixture(scope="module")
def plain():
    """The runs that compute everything, by their settings."""
    return {}


def pair(run, plain, way: dict, **settings):
    key = repr(sorted(settings.items()))
    if key not in plain:
        plain[key] = run(**SETTINGS, **settings)
    return run(**SETTINGS, **settings, **way), plain[key]


# Every loss type, and each part of it with a mean over rows and one over a number of tokens
@pytest.mark.parametrize(
    ("loss_type", "way"),
    [(loss, "all") for loss in EXACT]
    + [("grpo", way) for way in ("trim", "sort", "skip")]
    + [pytest.param("dr_grpo", way, marks=pytest.mark.slow) for way in ("trim", "sort", "skip")],
)
def test_training_is_the_same(run, plain, way, loss_type):
    fast, whole = pair(run, plain, WAYS[way], loss_type=loss_type)
    # float32: sums of another order
    assert distance(weights(fast), weights(whole)) < 1e-5
    assert logged(fast, "loss") == pytest.approx(logged(whole, "loss"), abs=1e-5)
    assert logged(fast, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-3)


def test_the_run_would_be_another_without_the_scale_of_a_mean(run, plain, monkeypatch):
    monkeypatch.setattr("trl_entropy._seam.seam.OVER_ROWS", ())
    fast, whole = pair(run, plain, WAYS["skip"], loss_type="grpo")
    assert distance(weights(fast), weights(whole)) > 1e-2


@pytest.mark.parametrize(
    "more",
    [
        {"token_weights": {"confident_sign": {"alpha": -0.5, "threshold": 0.2}}, "positive_advantage_coef": 0.5},
        {"entropy_control": "confident_sign", "entropy_target_ratio": 0.9},
        {"num_iterations": 2, "off_policy_updates": 4},
        {"importance_sampling_level": "sequence"},
        {"mask_truncated_completions": True},
        {"rollout_rules": {"prompt_temperature": {"step": 0.3}}},
        {"off_policy_updates": 1},
    ],
    ids=lambda more: next(reversed(more)),
)
def test_it_goes_with_what_else_there_is(run, more):
    settings = {**SETTINGS, **more}
    fast, whole = run(**settings, **WAYS["all"]), run(**settings)
    assert distance(weights(fast), weights(whole)) < 1e-5


# A pooled rule without a threshold: at one, the last digits of two equal tokens decide
@pytest.mark.parametrize("way", few(["sort", "trim"]))
@pytest.mark.parametrize(
    "more", [{"beta": 0.1}, {"token_weights": {"relative_entropy": {}}}, {"loss_terms": {"ce_gppo": {}}}]
)
def test_what_only_skipping_would_change_may_be_sorted(run, way, more):
    fast, whole = run(**SETTINGS, **more, **WAYS[way]), run(**SETTINGS, **more)
    assert distance(weights(fast), weights(whole)) < 1e-5


@pytest.mark.parametrize("level", ["basic", "full"])
@pytest.mark.parametrize("updates", [1, 4])
def test_what_is_measured_is_of_all_tokens_under_the_policy_as_it_is(run, level, updates):
    settings = {**SETTINGS, "off_policy_updates": updates, "entropy_measures": level, "num_iterations": updates}
    pi = {"law": "pi", "knob": "positive_advantage_coef", "target": 2.0, "kp": 1.0}
    settings |= {"controllers": {"mine": pi}}
    fast, whole = run(**settings, fast_step=True), run(**settings)
    entropies = logged(whole, "entropy/decile_1")
    assert max(entropies) - min(entropies) > 0.01  # the policy moves, also between the updates of one rollout
    names = {name for row in whole.state.log_history for name in row}
    measured = [
        name
        for name in names
        if name.startswith(("entropy", "share/", "staleness", "covariance", "gradient_mass", "knobs", "controllers"))
    ]
    assert len(measured) > 20
    for name in measured:
        # without the flag TRL logs the mean of the means of its micro-batches as entropy
        rough = 1e-2 if name == "entropy" else 1e-5
        # sums of another order, rounded by the log
        assert logged(fast, name) == pytest.approx(logged(whole, name), rel=1e-3, abs=rough), name


def test_rows_without_gradient_are_not_trained_on(run):
    class Counted(EntropyGiven):
        rows = 0

        def _compute_loss(self, model, inputs):
            self.rows += inputs["completion_ids"].numel()
            return super()._compute_loss(model, inputs)

    settings = {**SETTINGS, "trainer_class": Counted}
    fast, whole = run(**settings, fast_step=True), run(**settings)
    assert fast.rows < 0.5 * whole.rows


def test_advantages_of_tokens_go_with_it(run):
    class OfTokens(EntropyGiven):
        """A subclass whose advantages are `(B, T)`, 0 from the fourth token on, and which has a column of its own."""

        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            if self.model.training:
                places = torch.arange(batch["completion_ids"].shape[1])
                batch["advantages"] = batch["advantages"].unsqueeze(1) * (places < 3)
                batch["mine"] = batch["completion_mask"].float()
            return batch

        def _compute_loss(self, model, inputs):
            if self.model.training:
                assert inputs["mine"].shape == inputs["completion_ids"].shape
            return super()._compute_loss(model, inputs)

    settings = {**SETTINGS, "trainer_class": OfTokens}
    fast, whole = run(**settings, fast_step=True), run(**settings)
    assert distance(weights(fast), weights(whole)) < 1e-5


def test_resumed_run_is_the_uninterrupted_one(run, tmp_path):
    settings = {**SETTINGS, "fast_step": True, "save_strategy": "steps", "save_steps": 2}
    whole = run(output_dir=tmp_path / "whole", **settings)
    run(output_dir=tmp_path / "parts", callbacks=[StopAt(2)], **settings)
    second = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-2"), **settings)
    assert torch.equal(weights(second), weights(whole))


# Refused


@pytest.mark.parametrize(
    ("settings", "flag", "reason"),
    [
        ({"loss_type": "bnpo"}, "sort_by_length", "loss_type=bnpo is a mean over the tokens of each micro-batch"),
        ({"loss_type": "bnpo"}, "skip_zero_advantage", "loss_type=bnpo is a mean over the tokens of each micro-batch"),
        ({"entropy_coef": 0.1}, "sort_by_length", "the entropy bonus is a mean over the tokens of each micro-batch"),
        ({"use_adaptive_entropy": True}, "skip_zero_advantage", "the entropy bonus is a mean"),
        ({"entropy_control": "skywork"}, "skip_zero_advantage", "the entropy bonus is a mean"),
        ({"top_entropy_quantile": 0.5}, "sort_by_length", "top_entropy_quantile is taken over each micro-batch"),
        (
            {"steps_per_generation": 3, "gradient_accumulation_steps": 2},
            "sort_by_length",
            "steps_per_generation=3 is no",
        ),
        ({"beta": 0.1}, "skip_zero_advantage", "beta > 0 also trains on completions with advantage 0"),
        ({"advantage_bonuses": {"position": {}}}, "skip_zero_advantage", "advantage_bonuses.position also trains on"),
        ({"loss_terms": {"ce_gppo": {}}}, "skip_zero_advantage", "loss_terms.ce_gppo also trains on completions with"),
        (
            {"token_weights": {"high_entropy": {}}},
            "skip_zero_advantage",
            "high_entropy take statistics over all tokens",
        ),
        (
            {
                "token_weights": {"confident_sign": {"alpha": -0.5}},
                "controllers": {
                    "mine": {
                        **{"law": "pi", "knob": "positive_advantage_coef", "target": 2.0},
                        "signal": "entropy/token_weights.confident_sign",
                    }
                },
            },
            "skip_zero_advantage",
            "controllers mine read the tokens of a rule",
        ),
    ],
)
def test_what_would_change_the_run_is_refused(tmp_path, settings, flag, reason):
    base = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none", **settings}
    with pytest.raises(ValueError, match="would change the run") as error:
        EntropyGRPOConfig(**base, **{flag: True})
    assert str(error.value).startswith(f"{flag} would change the run: {reason}")
    with pytest.raises(ValueError, match="would change the run") as error:
        EntropyGRPOConfig(**base, fast_step=True)
    assert str(error.value).startswith("fast_step: ")
    assert "set trim_padding" in str(error.value)
    EntropyGRPOConfig(**base, trim_padding=True)
