"""With vLLM, TRL's importance-sampling correction multiplies what the rules have decided."""

import math
from types import SimpleNamespace

import pytest
import torch
from toy import distance, few, halves, logged, sums_with_columns
from transformers import AutoModelForCausalLM, TrainerCallback
from trl.trainer import grpo_trainer

from trl_entropy import SeamError


MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
CAP = 1.3
RULES = {"token_weights": {"high_entropy": {"fraction": 0.5}}, "positive_advantage_coef": 0.5}
MICRO = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def dataset():
    return sums_with_columns()


def gap(ids: torch.Tensor) -> torch.Tensor:
    """How much less likely the sampler finds each token than the policy does, float64."""
    return 0.3 * torch.sin(ids.double() + torch.arange(ids.shape[-1])) + 0.05


class Sampler:
    """In the place of TRL's connection to vLLM: samples with the policy, and gives other log-probs than its own."""

    def __init__(self, model, temperature, max_completion_length, **settings):
        self.model, self.temperature, self.length = model, temperature, max_completion_length
        self.syncs, self.temperatures = 0, []
        self.vllm_client = SimpleNamespace(get_server_info=dict)

    def sync_weights(self):
        self.syncs += 1

    @torch.no_grad()
    def generate(self, prompts, images, num_generations, profiler):
        self.temperatures.append(self.temperature)
        sampled, given = [], []
        length = self.length - 3 * (len(self.temperatures) % 2)  # what is sampled first is shorter
        settings = {"max_new_tokens": length, "do_sample": True, "temperature": self.temperature}
        for prompt in prompts:
            whole = self.model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **settings)
            ids = whole[:, len(prompt) :]
            logits = self.model(input_ids=whole).logits[:, len(prompt) - 1 : -1].double() / self.temperature
            logps = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1) - gap(ids)
            sampled.append(ids[0].tolist())
            given.append([[logp] for logp in logps[0].tolist()])
        return prompts, sampled, given, None


@pytest.fixture
def build_sampled(monkeypatch, model_dir, build_trainer_on):
    def make(**arguments):
        monkeypatch.setattr(grpo_trainer, "VLLMGeneration", Sampler)
        settings = {"vllm_importance_sampling_clip_max": CAP, "learning_rate": 0.01, "optim": "sgd", **arguments}
        return build_trainer_on(model_dir, use_vllm=True, **settings)

    return make


class Gradients(TrainerCallback):
    """Keeps the gradient of every optimizer step, and the parameters that it belongs to."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        names = [name for name, _ in model.named_parameters()]
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.steps.append((names, gradient, weights))


def corrected(inputs: dict, mode: str) -> torch.Tensor:
    """`(B, T)` or `(B, 1)`: what TRL documents for a mode, from the tokens alone."""
    mask = inputs["completion_mask"]
    gaps = gap(inputs["completion_ids"]) * mask
    ratio = (gaps.sum(1, keepdim=True) if mode.startswith("sequence") else gaps).exp()
    return ratio.clamp(max=CAP) if mode.endswith("truncate") else torch.where(ratio > CAP, 0.0, ratio)


def expected(model_dir: str, weights: dict, names: list[str], batches: list[dict], mode: str | None, rules: bool):
    """Loss and gradient of an optimizer step on these micro-batches, in float64, by a forward of its own."""
    model = AutoModelForCausalLM.from_pretrained(model_dir).double()
    model.load_state_dict(weights)
    logps, entropies, masks = [], [], []
    for inputs in batches:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        length = inputs["completion_ids"].shape[1]
        of_vocabulary = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1].log_softmax(-1)
        logps.append(of_vocabulary.gather(-1, inputs["completion_ids"].unsqueeze(-1)).squeeze(-1))
        entropies.append(-(of_vocabulary.exp() * of_vocabulary).sum(-1).detach())
        masks.append(inputs["completion_mask"].bool())
    pool = torch.cat([values[mask] for values, mask in zip(entropies, masks, strict=True)]).sort().values
    threshold = pool[math.ceil(0.5 * (len(pool) - 1))]
    total = 0.0
    for inputs, logp, entropy, mask in zip(batches, logps, entropies, masks, strict=True):
        advantage = inputs["advantages"].double().unsqueeze(1)
        if rules:
            advantage = torch.where(advantage > 0, 0.5 * advantage, advantage) * (entropy >= threshold - 1e-6)
        ratio = (logp - inputs["old_per_token_logps"].double()).exp()
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        correction = 1.0 if mode is None else corrected(inputs, mode)
        total = total - (surrogate * correction * mask).sum() / len(pool)
    gradients = torch.autograd.grad(total, [dict(model.named_parameters())[name] for name in names])
    return total.item(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradient_are_those_with_the_ratio_times_the_weight(build_sampled, model_dir, mode):
    settings = {"vllm_importance_sampling_mode": mode, "num_iterations": 2, "max_grad_norm": 0.0, "max_steps": 2}
    keep = Gradients()
    trainer = build_sampled(**MICRO, **RULES, **settings, learning_rate=3.0, callbacks=[keep])
    trainer.train()
    assert trainer.vllm_generation.syncs == 1
    ratios = torch.cat([corrected(inputs, mode).flatten() for inputs in trainer._buffered_inputs])
    assert len(set(ratios.tolist())) > 2
    assert ((ratios == CAP) | (ratios == 0)).any()
    for step, (names, gradient, weights) in enumerate(keep.steps):  # the second is off-policy
        loss, of_formula = expected(model_dir, weights, names, trainer._buffered_inputs, mode, rules=True)
        # float32 against float64
        assert distance(gradient, of_formula) < 1e-4
        assert logged(trainer, "loss")[step] == pytest.approx(loss, abs=1e-5)
        for wrong in ({"mode": None, "rules": True}, {"mode": mode, "rules": False}):
            _, other = expected(model_dir, weights, names, trainer._buffered_inputs, **wrong)
            assert distance(gradient, other) > 0.02
    assert logged(trainer, "clip_ratio/region_mean")[1] > 0


def test_slopes_have_the_ratio_too(build_sampled):
    trainer = build_sampled(vllm_importance_sampling_mode="token_truncate", max_steps=1)
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append((tokens, effective)), observe(tokens, effective))
    trainer.train()
    ratios = [corrected(inputs, "token_truncate").float() for inputs in trainer._buffered_inputs]
    pulls = []
    for (tokens, effective), ratio in zip(seen, ratios, strict=True):
        on_policy = tokens.advantages * ratio  # one update: all ratios of the policy are 1
        torch.testing.assert_close(tokens.trained(effective), tokens.trained(on_policy), rtol=1e-4, atol=0)
        pulls.append((on_policy * (1 - tokens.logps.exp()))[tokens.mask])
    mass = logged(trainer, "gradient_mass/positive")[0]
    assert mass == pytest.approx(torch.cat(pulls).clamp(min=0).mean().item(), rel=1e-3)


def test_without_rules_training_is_that_of_trl(build_sampled):
    settings = {"vllm_importance_sampling_mode": "token_truncate", "max_steps": 2, **MICRO}
    trl = build_sampled(plain=True, **settings)
    trl.train()
    ours = build_sampled(**settings)
    ours.train()
    for name in ("loss", "entropy", "grad_norm", "sampling/importance_sampling_ratio/mean"):
        assert logged(ours, name) == logged(trl, name)


@pytest.mark.parametrize("mode", few(["token_truncate", "sequence_truncate"]))
def test_dynamic_sampling_keeps_the_ratio_with_its_row(build_sampled, mode):
    rules = {"rollout_rules": {"dynamic_sampling": {"max_rounds": 9}}, "reward_funcs": halves}
    settings = {"vllm_importance_sampling_mode": mode, "max_completion_length": 9, "max_steps": 2}
    trainer = build_sampled(**MICRO, **rules, **RULES, **settings)
    batches, prepare = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: (batches.append(prepare(inputs)), batches[-1])[1]
    trainer.train()
    assert max(logged(trainer, "rollout/groups_sampled")) > 4
    assert not all(inputs["completion_mask"].all() for inputs in batches)
    for inputs in batches:
        mask, actual = inputs["completion_mask"].bool(), inputs["importance_sampling_ratio"]
        ratio = corrected(inputs, mode)
        # float32 log-probs; what is masked has a ratio of 1
        torch.testing.assert_close(actual.double(), ratio, rtol=1e-4, atol=0)
        assert mode.startswith("sequence") or (actual[~mask] == 1).all()
        expected_logps = inputs["old_per_token_logps"].double() - gap(inputs["completion_ids"])
        found = inputs["sampling_per_token_logps"].double()
        torch.testing.assert_close(found[mask], expected_logps[mask], rtol=0, atol=1e-4)


def test_vespo_trains_after_dynamic_sampling_as_on_the_rows_alone(build_sampled):
    """The vespo loss reads the ratios of masked tokens too, so how far a row is padded must not matter."""
    settings = {"loss_type": "vespo", "vllm_importance_sampling_mode": "token_truncate", "max_completion_length": 9}
    rules = {"rollout_rules": {"dynamic_sampling": {"max_rounds": 9}}, "reward_funcs": halves}
    trainer = build_sampled(**settings, **rules, per_device_train_batch_size=16, max_steps=1)
    trainer.train()
    (inputs,) = trainer._buffered_inputs
    short = inputs["completion_mask"].sum(1).argmin()
    length = int(inputs["completion_mask"].sum(1)[short])
    assert length < inputs["completion_ids"].shape[1]
    whole = {name: value[short : short + 1] for name, value in inputs.items() if value.dim() > 0}
    cut = {
        name: value[:, :length] if name not in ("prompt_ids", "prompt_mask") and value.dim() == 2 else value
        for name, value in whole.items()
    }
    count = {"num_items_in_batch": torch.tensor(length)}
    losses = [trainer._compute_loss(trainer.model, {**rows, **count}).item() for rows in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != 0


@pytest.mark.parametrize("corrects", [True, False])
def test_what_the_sampler_has_said_is_a_fact_of_tokens(build_sampled, corrects):
    settings = {"vllm_importance_sampling_mode": "token_truncate", "num_iterations": 2, "trim_padding": True}
    settings |= {"vllm_importance_sampling_correction": corrects, "entropy_measures": "full", "learning_rate": 3.0}
    trainer = build_sampled(max_steps=2, **settings)
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append(tokens), observe(tokens, effective))
    trainer.train()
    gaps = []
    for tokens, inputs in zip(seen, [*trainer._buffered_inputs, *trainer._buffered_inputs], strict=True):
        expected_gap = tokens.trained(gap(inputs["completion_ids"]).float())
        torch.testing.assert_close(tokens.old_logps - tokens.sampling_logps, expected_gap, rtol=0, atol=1e-4)
        gaps.append(expected_gap[tokens.mask].abs())
    # of the engine alone: at the second update the policy has moved, and this has not
    for name, of_gap in (("log_ratio", lambda gap: gap), ("beyond_factor_2", lambda gap: (gap > math.log(2)).float())):
        means = [of_gap(part).mean().item() for part in gaps]
        assert logged(trainer, f"mismatch/{name}") == pytest.approx(means, abs=1e-5)
    assert logged(trainer, "staleness/log_ratio")[1] > 1e-3


def test_divergence_of_a_mask_is_from_what_the_sampler_has_said(build_sampled):
    wide = {"loss_type": "cispo", "epsilon_high": 20.0, "vllm_importance_sampling_mode": "token_truncate"}
    rules = {name: {"low": bound, "high": bound} for name, bound in (("dppo_tv", 0.01), ("dppo_kl", 0.001))}
    trainer = build_sampled(**wide, token_weights=rules, entropy_measures="full", max_steps=1)
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append((tokens, effective)), observe(tokens, effective))
    trainer.train()
    ((tokens, effective),), (inputs,) = seen, trainer._buffered_inputs
    # one update: the policy is where it was, and only the engine differs
    gaps, advantages = gap(inputs["completion_ids"])[tokens.mask], tokens.advantages[tokens.mask]
    p = tokens.logps[tokens.mask].double().exp()
    q = p * (-gaps).exp()
    away = advantages * gaps > 0
    kl = q * -gaps + (1 - q) * ((1 - q) / (1 - p)).log()
    masked = {"dppo_tv": away & ((p - q).abs() > 0.01), "dppo_kl": away & (kl > 0.001)}
    for name, where in masked.items():
        assert logged(trainer, f"token_weights/{name}/share") == [
            pytest.approx(where.double().mean().item(), abs=1e-6)
        ]
        assert where.any()
        assert (effective[tokens.mask][where] == 0).all()


def test_rule_that_reads_the_sampler_is_told_where_trl_has_dropped_it(build_sampled):
    trainer = build_sampled(max_steps=1)
    trainer.train()
    (inputs,) = trainer._buffered_inputs
    without = {name: value for name, value in inputs.items() if name != "sampling_per_token_logps"}
    trainer.seam.facts.look(trainer.model, without, set())
    with pytest.raises(SeamError, match="lacks vLLM's log-probs, which a rule reads"):
        trainer.seam.facts.look(trainer.model, without, {"sampling_logps"})


def test_controller_of_temperature_turns_that_of_the_sampler(build_sampled):
    law = {"law": "constant", "knob": "temperature", "value": 0.9}
    trainer = build_sampled(controllers={"hot": law}, vllm_importance_sampling_mode="token_truncate", max_steps=2)
    trainer.train()
    assert trainer.vllm_generation.temperatures == [0.9, 0.9]
    (inputs,) = trainer._buffered_inputs
    expected_ratio = corrected(inputs, "token_truncate")
    # scored at the temperature that was sampled at: only the gap is left
    torch.testing.assert_close(inputs["importance_sampling_ratio"].double(), expected_ratio, rtol=1e-4, atol=0)
