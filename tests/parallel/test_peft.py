"""LoRA: a new adapter, and one that is trained further; the reference is the base, or the adapter as it was."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from test_resume import StopAt
from toy import EntropyGiven, distance, halves, logged, parameters, same, sums_with_columns
from transformers import AutoModelForCausalLM


ADAPTER = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "up_proj"]}
pytestmark = pytest.mark.filterwarnings(r"ignore:`gradient_checkpointing_\w+` is deprecated:FutureWarning")
every_adapter = pytest.mark.parametrize("kind", ["new", "trained"])


@pytest.fixture(scope="module")
def dataset():
    return sums_with_columns()


@pytest.fixture(scope="module")
def adapter_dir(model_dir, tmp_path_factory) -> str:
    """A folder with an adapter that changes the policy."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(5)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    get_peft_model(base, LoraConfig(**ADAPTER, init_lora_weights=False)).save_pretrained(folder)
    return str(folder)


def base_of(model_dir: str):
    return AutoModelForCausalLM.from_pretrained(model_dir)


@pytest.fixture
def reference(kind, model_dir, adapter_dir):
    """The policy that a run starts from."""
    base = base_of(model_dir)
    return base if kind == "new" else PeftModel.from_pretrained(base, adapter_dir)


@pytest.fixture
def build_peft(kind, model_dir, adapter_dir, build_trainer_on):
    def make(**arguments):
        torch.manual_seed(0)  # of a new adapter
        if kind == "new":
            return build_trainer_on(model_dir, peft_config=LoraConfig(**ADAPTER), **arguments)
        model = PeftModel.from_pretrained(base_of(model_dir), adapter_dir, is_trainable=True)
        return build_trainer_on(model, **arguments)

    return make


def logps_by(model, inputs: dict, temperatures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the tokens and entropies `(B, T)` at a temperature for each row, float64, by a plain forward."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1].double()
    logps = (logits / temperatures.view(-1, 1, 1)).log_softmax(-1)
    chosen = logps.gather(-1, inputs["completion_ids"].unsqueeze(-1)).squeeze(-1)
    return chosen, -(logps.exp() * logps).sum(-1)


def seen_by(trainer) -> list:
    """The tokens of every training micro-batch."""
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append(tokens), observe(tokens, effective))
    return seen


def assert_close(actual: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor) -> None:
    # float32 against float64
    torch.testing.assert_close(actual[mask].double(), expected[mask], rtol=0, atol=2e-5)


@every_adapter
@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 0.1}, {"beta": 0.1, "num_iterations": 2, "max_steps": 4, "gradient_checkpointing": True}],
    ids=lambda settings: "_".join(settings) or "plain",
)
def test_training_with_neutral_settings_is_that_of_trl(build_peft, settings):
    rules = {"token_weights": {"confident_sign": {"alpha": 0.0}}, "entropy_measures": "full"}
    trl = build_peft(plain=True, **settings)
    trl.train()
    ours = build_peft(**rules, **settings)
    before = parameters(ours)
    ours.train()
    after = parameters(ours)
    assert same(after, parameters(trl))
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(".lora_" in name and ".ref." not in name for name in changed)
    for name in ("loss", "kl", "grad_norm", "entropy"):
        assert logged(ours, name) == logged(trl, name)


@every_adapter
def test_rules_read_the_reference_and_the_old_policy(build_peft, reference):
    settings = {"beta": 0.1, "num_iterations": 2, "max_steps": 4, "temperature": 0.8}
    rules = {
        "token_weights": {"relative_entropy": {}, "clip_v": {"mu": 1.0, "max_share": 0.1}, "entropy_ratio": {}},
        "loss_terms": {"kl_cov": {"share": 0.3}},
    }
    trainer = build_peft(**settings, **rules, entropy_measures="full")
    seen = seen_by(trainer)
    trainer.train()
    inputs, tokens = trainer._buffered_inputs[0], seen[-1]
    at_run, at_one = torch.full((8,), 0.8), torch.ones(8)
    assert_close(tokens.ref_logps, logps_by(reference, inputs, at_run)[0], tokens.mask)
    assert ((tokens.ref_logps - tokens.logps)[tokens.mask].abs() > 0.1).any()  # the policy has moved
    # the last loss was computed before the last optimizer step, so the entropies are those of another policy
    with pytest.raises(AssertionError):
        assert_close(tokens.entropies_at_one, logps_by(trainer.model, inputs, at_one)[1], tokens.mask)
    first = seen[2]  # on-policy, of the second rollout
    assert torch.equal(first.old_entropies[first.mask], first.entropies[first.mask])


@every_adapter
def test_entropy_at_one_is_that_of_the_adapted_policy(build_peft):
    trainer = build_peft(temperature=0.8, entropy_measures="full", learning_rate=0.0, max_steps=2)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if ".lora_B.default." in name:
                parameter.add_(0.3)
    seen = seen_by(trainer)
    trainer.train()
    inputs, tokens = trainer._buffered_inputs[0], seen[-1]
    assert_close(tokens.entropies_at_one, logps_by(trainer.model, inputs, torch.ones(8))[1], tokens.mask)
    with trainer.model.disable_adapter(), pytest.raises(AssertionError):
        assert_close(tokens.entropies_at_one, logps_by(trainer.model, inputs, torch.ones(8))[1], tokens.mask)


@every_adapter
@pytest.mark.parametrize("checkpointing", [False, True])
def test_temperature_of_a_prompt_acts_once_on_policy_and_reference(build_peft, reference, checkpointing):
    rules = {"rollout_rules": {"prompt_temperature": {"step": 0.3}}, "loss_terms": {"kl_cov": {"share": 0.3}}}
    settings = {"reward_funcs": halves, "per_device_train_batch_size": 16, "max_steps": 6, "learning_rate": 0.0}
    settings |= {"beta": 0.1, "temperature": 0.8, "gradient_checkpointing": checkpointing}
    trainer = build_peft(**settings, **rules)
    seen = seen_by(trainer)
    trainer.train()
    inputs, tokens = trainer._buffered_inputs[0], seen[-1]
    temperatures = inputs["temperatures"] * 0.8
    assert len(set(temperatures.tolist())) > 1
    policy, entropies = logps_by(trainer.model, inputs, temperatures)
    assert_close(tokens.logps, policy, tokens.mask)
    assert_close(tokens.entropies, entropies, tokens.mask)
    assert_close(tokens.ref_logps, logps_by(reference, inputs, temperatures)[0], tokens.mask)
    with pytest.raises(AssertionError):
        assert_close(tokens.ref_logps, logps_by(reference, inputs, temperatures**2)[0], tokens.mask)


@every_adapter
def test_resumed_run_is_the_uninterrupted_one(build_peft, tmp_path):
    settings = {
        **{"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "beta": 0.1, "reward_funcs": halves},
        **{"entropy_control": "entropic", "loss_terms": {"confident_surrogate": {"threshold": 0.2}}},
        "controllers": {"entropic": {"kp": 2.0, "ki": 0.5, "target_ratio": 0.97, "start_steps": 1}},
        **{"rollout_rules": {"prompt_temperature": {"step": 0.3}}, "trainer_class": EntropyGiven},
    }
    whole = build_peft(output_dir=tmp_path / "whole", **settings)
    whole.train()
    build_peft(output_dir=tmp_path / "parts", callbacks=[StopAt(3)], **settings).train()
    second = build_peft(output_dir=tmp_path / "parts", **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert second.state.global_step == 6
    assert same(parameters(second), parameters(whole))
    assert second.control_state() == whole.control_state()
    for name in ("kl", "knobs/loss_terms.confident_surrogate.alpha", "entropy"):
        assert logged(second, name) == logged(whole, name)
    assert len(set(logged(whole, "kl"))) > 3


def test_comparison_of_adapters_can_fail(model_dir, adapter_dir):
    plain = {name: value.detach() for name, value in base_of(model_dir).named_parameters()}
    adapted = PeftModel.from_pretrained(base_of(model_dir), adapter_dir).merge_and_unload()
    adapted = {name: value.detach() for name, value in adapted.named_parameters()}
    name = "model.layers.0.self_attn.q_proj.weight"
    assert distance(adapted[name], plain[name]) > 0.1
