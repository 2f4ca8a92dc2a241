"""What a controller looks at, through the trainer."""

from types import SimpleNamespace

import pytest
import torch
from toy import EntropyGiven, PlainGiven, batch, entropies_by_model, fresh_logps, logged, moved

from trl_entropy import EntropyCallback, EntropyController, SeamError
from trl_entropy._seam import logged_signal
from trl_entropy.control.signals import SIGNALS


PI = {"law": "pi", "knob": "entropy_coef", "kp": 0.5, "ki": 0.1}
HIGH = {"high_entropy": {"fraction": 0.4}}


class Seen(EntropyGiven):
    """Keeps the tokens of every training micro-batch, and of the temperature-1 entropy an independent computation."""

    def observe(self, tokens, effective):
        super().observe(tokens, effective)
        self.__dict__.setdefault("seen", []).append((self.state.global_step, tokens))

    def _compute_loss(self, model, inputs):
        if self.model.training:
            entropy = entropies_by_model(model, inputs, temperature=1.0)[inputs["completion_mask"].bool()]
            self.__dict__.setdefault("at_one", []).append((self.state.global_step, entropy))
        return super()._compute_loss(model, inputs)


def length(completions, **kwargs) -> list[float]:
    return [len(completion) / 6 for completion in completions]


def of_steps(pairs: list[tuple[int, torch.Tensor]], steps: int) -> list[float]:
    return [torch.cat([value for at, value in pairs if at == step]).mean().item() for step in range(steps)]


def errors_to(target: float, values: list[float]) -> list[float]:
    return [target - value for value in values]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_entropy_at_temperature_1(run, temperature):
    spec = {**PI, "signal": "entropy/temperature_1", "target": 2.0}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer = run(trainer_class=Seen, temperature=temperature, controllers={"mine": spec}, **sizes)
    expected = of_steps(trainer.at_one, 3)
    # float32 against float64
    assert logged(trainer, "controllers/mine/error") == pytest.approx(errors_to(2.0, expected), abs=1e-5)
    assert logged(trainer, "entropy/temperature_1") == pytest.approx(expected, abs=1e-5)
    at_sampling = of_steps([(step, tokens.entropies[tokens.mask]) for step, tokens in trainer.seen], 3)
    assert (at_sampling == pytest.approx(expected, abs=1e-5)) is (temperature == 1.0)


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_entropy_of_a_sign(run, sign):
    spec = {**PI, "signal": f"entropy/{sign}_advantage", "target": 2.0}
    trainer = run(controllers={"mine": spec}, per_device_train_batch_size=32)
    values = logged(trainer, f"entropy/{sign}_advantage")
    assert len(values) == 3
    assert logged(trainer, "controllers/mine/error") == pytest.approx(errors_to(2.0, values), abs=1e-9)


def test_entropy_of_the_tokens_of_a_rule(run):
    spec = {**PI, "signal": "entropy/token_weights.high_entropy", "target": 2.0}
    trainer = run(trainer_class=Seen, token_weights=HIGH, controllers={"mine": spec})
    expected = []
    for step in range(3):
        entropies = torch.cat([tokens.entropies[tokens.mask] for at, tokens in trainer.seen if at == step])
        kept = entropies.sort(descending=True).values[: int(0.4 * len(entropies))]
        expected.append(kept.mean().item())
    # the 40 % of highest entropy; one token more or less at the threshold moves the mean by less than this
    assert logged(trainer, "controllers/mine/error") == pytest.approx(errors_to(2.0, expected), abs=1e-2)
    assert min(expected) > max(logged(trainer, "entropy"))


@pytest.mark.parametrize("level", ["none", "basic"])
@pytest.mark.parametrize("name", ["positive", "negative", "positive_share"])
def test_mass_of_the_gradient(build, name, level):
    signal = f"gradient_mass/{name}"
    spec = {**PI, "signal": signal, "target": 0.5, "raises_signal": True}
    trainer = build(trainer_class=Seen, controllers={"mine": spec}, entropy_measures=level, num_iterations=2)
    errors, look = [], trainer.controllers[0].update
    trainer.controllers[0].update = lambda value, *rest: (look(value, *rest), errors.append(value))
    trainer.train()
    expected = []
    for tokens in (tokens for _, tokens in trainer.seen):
        pull = tokens.advantages * tokens.ratios * (1 - tokens.logps.exp())
        pull = torch.where(tokens.mask & ~tokens.clipped, pull, 0)
        up, down = (side.clamp(min=0).sum().item() for side in (pull, -pull))
        count = tokens.mask.sum().item()
        expected.append({"positive": up / count, "negative": down / count, "positive_share": up / (up + down)}[name])
    assert errors == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "another", [{"loss_type": "cispo"}, {"importance_sampling_level": "sequence"}, {"top_entropy_quantile": 0.5}]
)
def test_mass_of_another_gradient_is_refused(build, another):
    spec = {**PI, "signal": "gradient_mass/positive_share", "target": 0.5, "raises_signal": True}
    with pytest.raises(ValueError, match="controllers.mine reads gradient_mass/positive_share, which is not meas"):
        build(controllers={"mine": spec}, **another)


def test_rule_that_is_neutral_is_looked_at_all_the_same(run):
    spec = {**PI, "signal": "entropy/token_weights.sign", "target": 2.0}
    trainer = run(controllers={"mine": spec})
    values = logged(trainer, "entropy")  # weight 1 for all
    assert logged(trainer, "controllers/mine/error") == pytest.approx(errors_to(2.0, values), abs=1e-5)


@pytest.mark.parametrize("signal", ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"])
def test_clip_ratio_is_that_of_trl(run, signal):
    spec = {"law": "bang_bang", "knob": "epsilon_low", "signal": signal, "target": 0.05, "raises_signal": False}
    trainer = run(controllers={"mine": spec}, max_steps=4, off_policy_updates=2, learning_rate=0.1)
    values = logged(trainer, signal)
    assert max(values) > 0
    assert logged(trainer, "controllers/mine/error") == pytest.approx([v - 0.05 for v in values], abs=1e-9)


@pytest.mark.parametrize(("masks", "expected"), [(True, 0.2), (False, 0.1)])
def test_clip_ratio_is_of_the_micro_batches_with_tokens(masks, expected):
    # of a micro-batch without a token TRL logs 0 for both; the first belongs to the step before
    logged = {"clip_ratio/low_mean": [0.5, 0.2, 0.0], "entropy": [1.0, 1.0, 0.0]}
    of_step = {"current_gradient_accumulation_steps": 2, "mask_truncated_completions": masks}
    assert logged_signal(SimpleNamespace(_metrics={"train": logged}, **of_step), "clip_ratio/low_mean") == expected


def test_step_without_tokens_has_no_clip_ratio(build):
    trainer = build()
    trainer._metrics["train"] |= {"clip_ratio/low_mean": [0.0], "entropy": [0.0]}
    assert trainer.signal("clip_ratio/low_mean") is None
    trainer.measures.last = {"entropy": 1.0}
    assert trainer.signal("clip_ratio/low_mean") == 0.0


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_reward_is_read_where_a_rollout_is_new(build, logging_steps):
    spec = {"law": "pi", "knob": "epsilon_high", "signal": "reward", "target": 0.9, "raises_signal": True}
    settings = {"max_steps": 6, "off_policy_updates": 2, "logging_steps": logging_steps}
    trainer = build(controllers={"mine": spec}, reward_funcs=length, **settings)
    seen = []
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, EntropyController))
    read = callback.read
    callback.read = lambda name: seen.append(read(name)) or seen[-1] if name == "reward" else read(name)
    trainer.train()
    rewards = [value for value in seen if value is not None]
    assert [value is not None for value in seen] == [True, False] * 3
    assert len(set(rewards)) > 1
    if logging_steps == 2:  # of each rollout batch one value is logged
        assert rewards == logged(trainer, "reward")


def test_rollout_cadence_turns_the_knob_between_rollouts_alone(run):
    spec = {**PI, "ki": 0.0, "kp": 1.0, "target": 2.0, "cadence": "rollout"}
    trainer = run(controllers={"mine": spec}, max_steps=9, off_policy_updates=3)
    entropies, knobs = logged(trainer, "entropy"), logged(trainer, "knobs/entropy_coef")
    means = [sum(entropies[start : start + 3]) / 3 for start in (0, 3, 6)]
    expected = [0.0, 2.0 - means[0], 2.0 - means[1]]
    assert knobs == pytest.approx([value for value in expected for _ in range(3)], abs=1e-5)
    assert len(set(knobs)) == 3


def test_rollout_cadence_on_a_plain_trainer(build):
    trainer = build(plain=True, trainer_class=PlainGiven, max_steps=4, steps_per_generation=2)
    spec = {**PI, "ki": 0.0, "kp": 1.0, "target": 2.0, "cadence": "rollout", "signal": "entropy"}
    EntropyCallback(**spec).attach(trainer)
    trainer.train()
    entropies = logged(trainer, "entropy")
    first = 2.0 - (entropies[0] + entropies[1]) / 2
    assert logged(trainer, "knobs/entropy_coef") == pytest.approx([0.0, 0.0, first, first], abs=1e-9)


def test_signal_that_plain_trl_does_not_have_is_refused():
    with pytest.raises(
        ValueError, match="signal must be one of entropy, clip_ratio/low_mean, .*, reward, got 'entropy/t"
    ):
        EntropyCallback(**PI, target=1.0, signal="entropy/temperature_1")


def test_signal_that_trl_does_not_log_is_refused(build):
    trainer = build(loss_type="cispo", epsilon_high=5.0)
    with pytest.raises(SeamError, match="TRL did not log clip_ratio/low_mean .* loss_type='cispo'"):
        logged_signal(trainer, "clip_ratio/low_mean")


def test_rule_that_is_not_there_is_refused(build):
    spec = {**PI, "signal": "entropy/token_weights.high_entropy", "target": 2.0}
    with pytest.raises(ValueError, match="unknown signal in controllers.mine"):
        build(controllers={"mine": spec})


def test_every_signal_can_be_named(build):
    for signal in SIGNALS:
        spec = {**PI, "signal": signal, "target": 0.5, "raises_signal": True}
        build(controllers={"mine": spec}, num_iterations=2)


def test_clip_ratio_of_completions_stays_one_where_a_weight_is_active(build):
    # a ratio for each completion: TRL logs the share of completions, whatever the advantages are multiplied by
    settings = {"importance_sampling_level": "sequence", "epsilon": 0.05}
    plain, ours = build(plain=True, **settings), build(positive_advantage_coef=0.5, **settings)
    given = batch()
    given["old_per_token_logps"] = moved(fresh_logps(plain, given), by=0.6)
    halved = torch.where(given["advantages"] > 0, 0.5, 1.0) * given["advantages"]
    expected = plain._compute_loss(plain.model, given | {"advantages": halved})
    torch.testing.assert_close(ours._compute_loss(ours.model, given), expected, rtol=1e-6, atol=0)
    for side in ("low", "high", "region"):
        name = f"clip_ratio/{side}_mean"
        assert ours._metrics["train"][name] == plain._metrics["train"][name]
        assert plain._metrics["train"][name][0] > 0
