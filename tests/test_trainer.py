import copy
import inspect
import math
from functools import wraps

import pytest
import torch
from toy import (
    EntropyGiven,
    PlainGiven,
    batch,
    distance,
    entropies_by_model,
    few,
    flat,
    fresh_logps,
    logged,
    loss_and_gradients,
    moved,
    parameters,
    same,
)
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer, EntropyWatchdog, LiveView, PassAtKCallback, Recorder
from trl_entropy.families import by_name
from trl_entropy.rewards import LastNumberReward
from trl_entropy.trainer import EntropyControl


class Measured(EntropyGiven):
    """Keeps what an independent eye sees in every training micro-batch: the entropy and the sign of each token."""

    def _compute_loss(self, model, inputs):
        if self.model.training:
            mask = inputs["completion_mask"].bool()
            signs = inputs["advantages"].sign().unsqueeze(1).expand_as(mask)
            entropies = entropies_by_model(model, inputs, self.temperature)
            self.__dict__.setdefault("seen", []).append((self.state.global_step, entropies[mask], signs[mask]))
        return super()._compute_loss(model, inputs)

    def measured(self, sign: int | None = None) -> list[float]:
        """Mean entropy of every step over all of its tokens, or over those with one sign of the advantage."""
        means = []
        for step in range(self.state.global_step):
            entropies = torch.cat([e if sign is None else e[s == sign] for k, e, s in self.seen if k == step])
            means.append(entropies.mean().item())
        return means


class Gradients(TrainerCallback):
    """Keeps the gradient that every optimizer step gets."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()]))


# Arguments


def test_every_argument_of_trl_is_taken_by_place_and_by_name(monkeypatch):
    given = []
    monkeypatch.setattr(GRPOTrainer, "__init__", kept(given))
    names = list(inspect.signature(GRPOTrainer).parameters)
    assert list(inspect.signature(EntropyGRPOTrainer).parameters) == names
    values = {name: f"the {name}" for name in names}
    values |= {"args": config(), "train_dataset": None, "callbacks": [], "tools": None}
    values |= {"rollout_func": None, "environment_factory": None}
    mixed = type("Mixed", (EntropyControl, type("Mixin", (), {}), GRPOTrainer), {})  # takes what GRPOTrainer takes
    for cls, positional, named in (
        (EntropyGRPOTrainer, values.values(), {}),
        (EntropyGRPOTrainer, (), values),
        (mixed, values.values(), {}),
    ):
        with pytest.raises(StopIteration):
            cls(*positional, **named)
        taken = given.pop()
        assert [type(one) for one in taken.pop("callbacks")] == [Recorder]
        assert taken == {name: value for name, value in values.items() if value not in (None, [])}
    with pytest.raises(TypeError, match="multiple values for keyword argument 'model'"):
        EntropyGRPOTrainer("a", model="b")
    with pytest.raises(TypeError, match=f"takes {len(names)} positional arguments, got {len(names) + 1}"):
        EntropyGRPOTrainer(*range(len(names) + 1))


class Plain:
    def __init__(self, *positional, **named):
        super().__init__(*positional, **named)


class ModelFirst:
    def __init__(self, model, *positional, **named):
        super().__init__(model, *positional, **named)


class OneMore:
    def __init__(self, more, *positional, **named):
        super().__init__(*positional, **named)


@pytest.mark.parametrize(
    ("behind", "names"),
    [
        ([Plain], ["model", "reward_funcs", "args"]),
        ([ModelFirst], ["model", "reward_funcs", "args"]),
        ([OneMore], ["more", "model", "reward_funcs", "args"]),
        ([Plain, OneMore, ModelFirst], ["more", "model", "reward_funcs", "args"]),
    ],
)
def test_arguments_that_classes_hand_on_keep_their_places(behind, names):
    cls = type("Mixed", (EntropyControl, *behind, GRPOTrainer), {})
    assert by_name(cls, EntropyControl, tuple(names)) == {name: name for name in names}


def kept(given: list):
    @wraps(GRPOTrainer.__init__)
    def init(self, **named):
        given.append(named)
        raise StopIteration

    return init


def config() -> EntropyGRPOConfig:
    return EntropyGRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")


def test_callbacks_are_attached_however_they_are_given(build, dataset):
    evaluation = PassAtKCallback(dataset.select(range(2)), every=3, num_samples=1, reward=LastNumberReward())
    trainer = build(callbacks=[evaluation, EntropyWatchdog, LiveView()])
    by_kind = {type(one): one for one in trainer.callback_handler.callbacks}
    assert all(by_kind[kind].trainer is trainer for kind in (PassAtKCallback, EntropyWatchdog, LiveView))
    trainer.add_callback(late := EntropyWatchdog(floor=1.0))
    assert evaluation.attach(trainer) is evaluation
    trainer.train()
    assert late.trainer is trainer
    assert len(logged(trainer, "eval_pass@1")) == 1


def test_config_of_trl_is_refused(model_dir, dataset, tmp_path):
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(TypeError, match="args must be an EntropyGRPOConfig, which takes the same arguments; got"):
        EntropyGRPOTrainer(model=model_dir, reward_funcs=len, args=args, train_dataset=dataset)


def test_rollout_larger_than_the_dataset_is_refused(build):
    # 8 * 12 completions of 4 generations a prompt need 24 prompts; the dataset has 16
    message = (
        r"needs 24 prompts \(generation_batch_size=96, num_generations=4\), but the dataset has 16: lower off_pol"
    )
    with pytest.raises(ValueError, match=message):
        build(off_policy_updates=12)


def test_rollout_as_large_as_the_dataset_is_taken(build):
    assert build(off_policy_updates=8).args.generation_batch_size == 64


# Knobs


def test_knobs_are_those_of_trl_and_of_the_rules(build):
    trainer = build(
        token_weights={"confident_sign": {"alpha": -0.5}}, loss_terms={"confident_surrogate": None}, epsilon_high=0.3
    )
    assert dict(trainer.knobs) == {
        "epsilon_low": 0.2,
        "epsilon_high": 0.3,
        "entropy_coef": 0.0,
        "temperature": 1.0,
        "learning_rate_scale": 1.0,
        "positive_advantage_coef": 1.0,
        "negative_advantage_coef": 1.0,
        "token_weights.confident_sign.alpha": -0.5,
        "token_weights.confident_sign.threshold": 0.95,
        "loss_terms.confident_surrogate.alpha": 0.0,
        "loss_terms.confident_surrogate.threshold": 0.95,
    }


@pytest.mark.parametrize(
    ("knob", "value", "flag"),
    [("epsilon_low", 0.05, "epsilon"), ("epsilon_high", 0.05, "epsilon_high"), ("entropy_coef", 0.1, "entropy_coef")],
)
def test_knob_of_trl_that_is_turned_acts_like_its_flag(build, knob, value, flag):
    flags = {flag: value} | ({"epsilon_high": 0.2} if flag == "epsilon" else {})
    turned, configured, untouched = build(), build(plain=True, **flags), build(plain=True)
    given = batch()
    given["old_per_token_logps"] = moved(fresh_logps(turned, given), by=0.4)
    turned.knobs[knob] = value
    expected, actual = loss_and_gradients(configured, given), loss_and_gradients(turned, given)
    assert torch.equal(actual[0], expected[0])
    assert same(actual[1], expected[1])
    assert not same(loss_and_gradients(untouched, given)[1], expected[1])


@pytest.mark.parametrize(
    ("knob", "value", "settings"),
    [
        ("positive_advantage_coef", 0.25, {"positive_advantage_coef": 0.25}),
        ("token_weights.confident_sign.alpha", -0.5, {"token_weights": {"confident_sign": {"alpha": -0.5}}}),
        ("loss_terms.confident_surrogate.alpha", 0.5, {"loss_terms": {"confident_surrogate": {"alpha": 0.5}}}),
    ],
)
def test_knob_of_a_rule_that_is_turned_acts_like_its_setting(build, knob, value, settings):
    rest = {section: dict.fromkeys(rules) for section, rules in settings.items() if isinstance(rules, dict)}
    turned, configured = build(**rest), build(**settings)
    turned.knobs[knob] = value
    given = batch()
    assert same(loss_and_gradients(turned, given)[1], loss_and_gradients(configured, given)[1])


def test_controller_on_entropy_coef_is_the_adaptive_coefficient_of_trl(run):
    # The policy is held still, so that both see the same entropies. TRL logs the coefficient after its update, the
    # package the one in force, which is the same one step later.
    common = {"learning_rate": 0.0, "max_steps": 8, "gradient_accumulation_steps": 2}
    target, delta, low, high = 2.555, 0.03, 0.0, 0.1
    trl = run(
        trainer_class=PlainGiven,
        plain=True,
        use_adaptive_entropy=True,
        **{"entropy_target": target, "entropy_coef_delta": delta, "entropy_coef_min": low, "entropy_coef_max": high},
        **common,
    )
    spec = {"law": "bang_bang", "knob": "entropy_coef", "target": target, "step": delta, "low": low, "high": high}
    ours = run(trainer_class=EntropyGiven, controllers={"mine": spec}, **common)
    assert logged(ours, "knobs/entropy_coef") == [0.0, *logged(trl, "entropy_coef")][:-1]
    assert len(set(logged(trl, "entropy_coef"))) > 2
    assert any(b < a for a, b in zip(logged(trl, "entropy_coef"), logged(trl, "entropy_coef")[1:], strict=False))


# What is measured


@pytest.mark.parametrize(
    "sizes", [{}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "temperature": 0.7}]
)
def test_logged_entropy_is_the_mean_over_all_tokens_of_the_step(run, sizes):
    control = {"entropy_control": "entropic", "controllers": {"entropic": {"target_ratio": 0.9, "start_steps": 1}}}
    trainer = run(trainer_class=Measured, **control, **sizes)
    tokens = [len(entropies) for _, entropies, _ in trainer.seen]
    assert len(set(tokens)) > 1
    # float32 against float64
    assert logged(trainer, "controllers/entropic/target") == pytest.approx([0.9 * trainer.measured()[0]] * 3, rel=1e-5)
    entropies = [h - target for h, target in zip(trainer.measured(), [0.9 * trainer.measured()[0]] * 3, strict=True)]
    assert logged(trainer, "controllers/entropic/error") == pytest.approx(entropies, abs=1e-5)
    assert logged(trainer, "entropy/positive_advantage") == pytest.approx(trainer.measured(1), rel=1e-5)
    assert logged(trainer, "entropy/negative_advantage") == pytest.approx(trainer.measured(-1), rel=1e-5)


def test_mean_weight_is_over_the_tokens_of_the_step(run):
    coefficients = {"positive_advantage_coef": 0.25, "negative_advantage_coef": 3.0}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    trainer = run(trainer_class=Measured, **coefficients, **sizes)
    expected = []
    for step in range(3):
        signs = torch.cat([s for k, _, s in trainer.seen if k == step])
        expected.append(((signs > 0) * 0.25 + (signs < 0) * 3.0 + (signs == 0) * 1.0).mean().item())
    assert logged(trainer, "token_weights/sign/mean") == pytest.approx(expected, rel=1e-6)


def test_nothing_is_logged_about_rules_that_do_not_act(run):
    names = {name for entry in run(max_steps=1).state.log_history for name in entry}
    assert {"entropy/positive_advantage", "knobs/positive_advantage_coef"} <= names
    assert not {name for name in names if name.startswith(("token_weights/", "loss_terms/", "controllers/"))}


# Controllers


def clipped(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def test_bang_bang_decides_after_a_step_what_is_used_from_the_next(run):
    spec = {"law": "bang_bang", "knob": "positive_advantage_coef", "step": 0.2, "high": 1.0}
    spec |= {"target_ratio": 0.97, "start_steps": 1}
    trainer = run(trainer_class=Measured, max_steps=8, controllers={"mine": spec}, positive_advantage_coef=0.5)
    entropies = trainer.measured()
    target = entropies[0] * 0.97
    expected = [0.5]
    for entropy in entropies[:-1]:  # the knob lowers entropy: up where there is too much
        expected.append(clipped(expected[-1] + (0.2 if entropy >= target else -0.2), 0.0, 1.0))
    assert logged(trainer, "knobs/positive_advantage_coef") == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) > 2
    assert any(b < a for a, b in zip(expected, expected[1:], strict=False))


def test_pi_decides_after_a_step_what_is_used_from_the_next(run):
    spec = {"entropic": {"kp": 0.8, "ki": 0.3}}
    trainer = run(
        trainer_class=Measured, max_steps=6, entropy_control="entropic", entropy_target=1.9, controllers=spec
    )
    errors = [entropy - 1.9 for entropy in trainer.measured()]
    expected = [0.0] + [clipped(0.8 * errors[k] + 0.3 * sum(errors[:k]), -1.0, 1.0) for k in range(5)]
    assert logged(trainer, "knobs/loss_terms.confident_surrogate.alpha") == pytest.approx(expected, abs=1e-5)
    assert logged(trainer, "controllers/entropic/error") == pytest.approx(errors, abs=1e-5)
    assert logged(trainer, "controllers/entropic/target") == [1.9] * 6
    assert len({round(value, 3) for value in expected}) > 3


def test_stage_law_over_a_run(run):
    # in step k of 8 the knob is max(0, 2 (k - 1) / 8 - 1)
    trainer = run(entropy_control="stage", max_steps=8)
    assert logged(trainer, "knobs/positive_advantage_coef") == [0.0] * 5 + [0.25, 0.5, 0.75]
    assert not logged(trainer, "controllers/stage/error")


def test_epoch_law_over_a_run(run):
    # 32 completions a step are 8 of 16 prompts, so two steps an epoch; (e - 1) / (3 - 1) in epoch e
    trainer = run(entropy_control="epoch", max_steps=-1, num_train_epochs=3, per_device_train_batch_size=32)
    assert logged(trainer, "knobs/positive_advantage_coef") == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


def test_epoch_law_with_the_length_of_the_run_in_steps(run):
    trainer = run(entropy_control="epoch", max_steps=4, per_device_train_batch_size=32)
    assert logged(trainer, "knobs/positive_advantage_coef") == [0.0, 0.0, 1.0, 1.0]


def test_epoch_law_refuses_a_run_of_one_epoch(build):
    with pytest.raises(ValueError, match="the epoch law needs a run of 2 epochs or more, got 1"):
        build(entropy_control="epoch", max_steps=2).train()


def test_schedules_act_from_the_first_step(build):
    first = Gradients()
    build(trainer_class=EntropyGiven, entropy_control="stage", max_steps=1, callbacks=[first]).train()
    expected = Gradients()
    build(trainer_class=EntropyGiven, positive_advantage_coef=0.0, max_steps=1, callbacks=[expected]).train()
    assert torch.equal(first.steps[0], expected.steps[0])


def test_decided_value_is_the_one_that_acts(build):
    spec = {"law": "bang_bang", "knob": "positive_advantage_coef", "step": 0.5, "target": 100.0}
    runs = {"controllers": {"mine": spec}}, {"positive_advantage_coef": 1.0}, {"positive_advantage_coef": 0.5}
    steps = []
    for settings in runs:  # the entropy is far below the target: from 1.0 down to 0.5 after the first step
        gradients = Gradients()
        build(trainer_class=EntropyGiven, max_steps=2, learning_rate=0.0, callbacks=[gradients], **settings).train()
        steps.append(gradients.steps)
    controlled, one, half = steps
    assert torch.equal(controlled[0], one[0])
    assert torch.equal(controlled[1], half[1])
    assert not torch.equal(half[1], one[1])


@pytest.mark.parametrize("control", ["entropy_guided", "entropic"])
def test_evaluation_moves_no_controller(run, dataset, control):
    controllers = {control: {"target_ratio": 0.97, "start_steps": 1}}
    settings = {"max_steps": 4, "entropy_control": control, "controllers": controllers}
    evaluated = run(trainer_class=Measured, eval_strategy="steps", eval_steps=1, eval_dataset=dataset, **settings)
    alone = run(trainer_class=Measured, **settings)
    assert len(logged(evaluated, "eval_loss")) == 4
    assert not [name for name in evaluated.state.log_history[1] if name.startswith(("eval_knobs", "eval_controllers"))]
    # float32: an evaluation draws random numbers, so TRL shuffles the rows of a batch otherwise
    assert evaluated.measured() == pytest.approx(alone.measured(), rel=1e-5)
    for name in (f"controllers/{control}/error", *(f"knobs/{knob}" for knob in alone.knobs)):
        assert logged(evaluated, name) == pytest.approx(logged(alone, name), abs=1e-5)
    before = evaluated.control_state(), dict(evaluated.knobs)
    evaluated.evaluate()
    assert (evaluated.control_state(), dict(evaluated.knobs)) == before


def test_step_without_a_trained_token_moves_no_controller(run):
    class Truncated(EntropyGiven):
        truncated_at = (0, 2)

    controllers = {"entropy_guided": {"target_ratio": 0.5, "start_steps": 1}}
    settings = {"controllers": controllers, "mask_truncated_completions": True, "max_steps": 5}
    trainer = run(trainer_class=Truncated, entropy_control="entropy_guided", **settings)
    # steps 1 and 3 train on nothing; 2 measures the target and goes up, 3 logs its error again, 4 and 5 follow
    knobs = logged(trainer, "knobs/positive_advantage_coef")
    errors = logged(trainer, "controllers/entropy_guided/error")
    assert len(errors) == 4
    assert errors[0] == errors[1]
    assert knobs == pytest.approx([0.0, 0.0, 0.05, 0.05, 0.1])
    assert errors[0] > 0
    assert all(value.isfinite().all() for value in parameters(trainer).values())


def test_schedule_goes_on_in_a_step_without_a_trained_token(run):
    class Truncated(EntropyGiven):
        truncated_at = (2, 3)

    trainer = run(trainer_class=Truncated, entropy_control="stage", mask_truncated_completions=True, max_steps=4)
    assert logged(trainer, "knobs/positive_advantage_coef") == [0.0, 0.0, 0.0, 0.5]
    assert trainer.knobs["positive_advantage_coef"] == 1.0  # decided after step 4 of 4


# Accumulation


ACCUMULATION = [
    {
        "entropy_control": "confident_sign",
        "entropy_target_ratio": 0.9,
        "token_weights": {"confident_sign": {"threshold": 0.3}},
    },
    {"loss_terms": {"confident_surrogate": {"alpha": -0.5, "threshold": 0.3}}},
    {
        "loss_terms": {"confident_surrogate": {"threshold": 0.3}},
        "controllers": {"mine": {"law": "pi", "knob": "loss_terms.confident_surrogate.alpha", "target_ratio": 0.9}},
    },
]


@pytest.mark.parametrize(
    ("total", "rollout"), [(64, {}), (64, {"num_iterations": 2}), (32, {"off_policy_updates": 2})]
)
@pytest.mark.parametrize("settings", few(ACCUMULATION, 2))
def test_split_into_micro_batches_does_not_matter(build, settings, total, rollout):
    runs = []
    for rows in (total, 8):
        gradients = Gradients()
        trainer = build(
            trainer_class=EntropyGiven,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=total // rows,
            loss_type="dapo",
            max_grad_norm=0.0,
            optim="sgd",  # Adam divides by the gradient, which magnifies rounding where it is near zero
            callbacks=[gradients],
            **rollout,
            **settings,
        )
        trainer.train()
        runs.append((trainer, gradients.steps))
    (whole, expected), (split, steps) = runs
    assert len(expected) == 3
    for step in range(3):  # float32 sums of another order
        assert distance(steps[step], expected[step]) < 1e-5
    for name in (f"knobs/{knob}" for knob in whole.knobs):
        assert logged(split, name) == pytest.approx(logged(whole, name), abs=1e-5)
    for name in ("entropy/positive_advantage", "entropy/negative_advantage", "gradient_mass/positive"):
        assert logged(split, name) == pytest.approx(logged(whole, name), rel=1e-5)
        for name in ("covariance/logp_advantage", "entropy_change/predicted", "entropy_change/observed"):
            assert logged(trainer, name) == pytest.approx(logged(whole, name), abs=1e-5)


def test_rules_of_the_accumulation_tests_are_at_work(build):
    steps = []
    for settings in ({}, {"token_weights": {"confident_sign": {"alpha": -0.5, "threshold": 0.3}}}, ACCUMULATION[1]):
        gradients = Gradients()
        size = {"per_device_train_batch_size": 64, "max_steps": 1, "max_grad_norm": 0.0}
        build(trainer_class=EntropyGiven, callbacks=[gradients], **size, **settings).train()
        steps.append(gradients.steps[0])
    assert distance(steps[1], steps[0]) > 1e-2
    assert distance(steps[2], steps[0]) > 1e-2


# Padding and degenerate batches


ACTING = [
    {},
    {"positive_advantage_coef": 0.3},
    {"token_weights": {"confident_sign": {"alpha": -0.5, "threshold": 0.2}, "high_entropy": {"fraction": 0.5}}},
    {"loss_terms": {"confident_surrogate": {"alpha": -0.5, "threshold": 0.2}}},
]


@pytest.mark.parametrize("settings", ACTING)
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "vespo"])
def test_tokens_under_the_mask_do_not_matter(build, settings, loss_type):
    trainer, trl = build(loss_type=loss_type, **settings), build(plain=True, loss_type=loss_type)
    clean = batch()
    clean["old_per_token_logps"] = moved(fresh_logps(trainer, clean), by=0.3)
    dirty = copy.deepcopy(clean)
    padding = dirty["completion_mask"] == 0
    assert padding.any()
    dirty["completion_ids"][padding] = torch.randint(2, 22, (int(padding.sum()),))
    dirty["old_per_token_logps"][padding] = -7.0
    for one in (trl, trainer):  # TRL's own loss does not see them either
        expected, actual = loss_and_gradients(one, clean), loss_and_gradients(one, dirty)
        assert torch.equal(actual[0], expected[0])
        assert distance(flat(actual[1]), flat(expected[1])) < 1e-6


@pytest.mark.parametrize("settings", ACTING)
def test_completion_without_a_trained_token_adds_nothing(build, settings):
    trainer = build(loss_type="dapo", **settings)
    given = batch()
    given["completion_mask"][3] = 0
    without = {name: value[torch.arange(8) != 3] if value.dim() else value for name, value in given.items()}
    expected, actual = loss_and_gradients(trainer, without), loss_and_gradients(trainer, given)
    assert actual[0].isfinite()
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-6, atol=1e-7)
    assert distance(flat(actual[1]), flat(expected[1])) < 1e-5


@pytest.mark.parametrize("settings", ACTING)
@pytest.mark.parametrize("case", ["no_advantage", "no_token"])
def test_batch_that_teaches_nothing_gives_a_loss_of_zero(build, settings, case):
    trainer = build(**settings)
    given = batch()
    if case == "no_advantage":
        given["advantages"] = torch.zeros(8)
    else:
        given |= {"completion_mask": torch.zeros(8, 6, dtype=torch.int), "num_items_in_batch": torch.tensor(0)}
    loss, gradients = loss_and_gradients(trainer, given)
    assert loss == 0
    assert (flat(gradients) == 0).all()


# Rules of one's own


def negative(tokens):
    return torch.where(tokens.advantages > 0, -0.1, 1.0)


def not_finite(tokens):
    return torch.full_like(tokens.logps, math.nan)


def one_value(tokens):
    return torch.ones(())


def halves(tokens):
    return torch.full_like(tokens.logps, 0.5)


@pytest.mark.parametrize("rule", [negative, not_finite])
def test_weight_that_is_negative_or_not_finite_ends_the_run_before_it_trains(build, rule):
    trainer = build(trainer_class=EntropyGiven, token_weights={f"{__name__}.{rule.__name__}": {}})
    before = parameters(trainer)
    fault = "a weight was negative, or a weight or bonus not finite, at step 1"
    message = rf"{fault}: one of token_weights\.{__name__}\.{rule.__name__} must"
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert same(parameters(trainer), before)


def test_weight_of_another_shape_ends_the_run(build):
    trainer = build(token_weights={f"{__name__}.one_value": {}})
    with pytest.raises(
        ValueError, match=r"token_weights\..*one_value must return a value per token, \(8, \d\), got \(\)"
    ):
        trainer.train()


def test_function_of_ones_own_is_a_weight(build):
    given = batch()
    ours = build(token_weights={f"{__name__}.halves": {}})
    expected = loss_and_gradients(build(plain=True), given)[1]
    assert distance(flat(loss_and_gradients(ours, given)[1]), 0.5 * flat(expected)) < 1e-6


def test_config_and_trainer_are_the_ones_that_the_package_names():
    import trl_entropy

    assert trl_entropy.EntropyGRPOTrainer is EntropyGRPOTrainer
    assert trl_entropy.EntropyGRPOConfig is EntropyGRPOConfig


AT_ONE = {"law": "pi", "knob": "entropy_coef", "target": 5.0, "signal": "entropy/temperature_1", "kp": 0.1}


@pytest.mark.parametrize("evaluates", [False, True])
def test_every_step_has_its_facts_whatever_was_evaluated_before_it(build, dataset, evaluates):
    eval_flags = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": dataset} if evaluates else {}
    trainer = build(max_steps=3, temperature=0.8, controllers={"hold": AT_ONE}, entropy_measures="full", **eval_flags)
    trainer.train()
    assert len(logged(trainer, "entropy/temperature_1")) == 3
    assert len(logged(trainer, "entropy/prompt")) == 3
    coefs = logged(trainer, "knobs/entropy_coef")
    assert coefs[0] == 0.0
    assert coefs[1] > 0.0


def test_rule_that_is_put_into_the_config_acts(build):
    trainer = build()
    args = trainer.args
    before = args.control
    assert args.control is before
    args.token_weights["high_entropy"] = {}
    assert "high_entropy" in args.control.token_weights
    assert args.control is not before
