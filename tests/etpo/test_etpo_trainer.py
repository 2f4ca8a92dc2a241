"""The trainer: its batch, losses and gradients against dense formulas, what is logged, kept, resumed and refused."""

from functools import partial

import pytest
import torch
from given_steps import ADAPTER, build_etpo, dense_losses, dense_states, of_policy
from peft import IA3Config, LoraConfig, get_peft_model
from toy import distance, flat, logged, parameters, same
from transformers import AutoModelForCausalLM, TrainerCallback, modeling_layers

from trl_entropy.etpo import Episodes, EtpoTrainer
from trl_entropy.etpo.critic import HeadOnStates
from trl_entropy.etpo.targets import critic_loss, soft_targets


pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
KINDS = {"model": {}, "adapters": {"peft_config": LoraConfig(**ADAPTER)}, "head": {}}
DENSE = ("model", "adapters")


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


@pytest.fixture
def build(model_dir, tmp_path):
    def make(output_dir=tmp_path, model=model_dir, **settings):
        torch.manual_seed(0)  # of new adapters and heads
        kind = settings.get("critic", "model")
        return build_etpo(model, output_dir, **{**KINDS.get(kind, {}), **settings})

    return make


@pytest.fixture
def run(build):
    def train(resume=None, **settings):
        trainer = build(**settings)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


@pytest.fixture
def rewards():
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("kind", DENSE)
def test_targets_are_the_dense_ones(run, kind, rewards):
    trainer = run(critic=kind, temperature=0.8, max_steps=2)
    batch = dict(trainer._buffered_inputs[0])
    mask = of_policy(batch)
    rewards = torch.where(mask, rewards[:, : mask.shape[1]], 0.0)
    found = trainer.prepared_batch(batch, rewards)["targets"].double()
    values, divergences = dense_states(trainer, batch)
    expected = soft_targets(values, divergences, rewards.double(), mask, 0.3, 0.99)
    assert divergences[mask].max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)  # float32 against float64
    ignored = soft_targets(values, divergences, rewards.double(), batch["completion_mask"].bool(), 0.3, 0.99)
    assert (ignored - expected)[mask].abs().max() > 0.1  # with the observation as a part of the action


@pytest.mark.parametrize("kind", DENSE)
def test_losses_and_gradients_are_the_dense_ones(run, kind):
    trainer = run(critic=kind, temperature=0.8, max_steps=2)
    batch = trainer._buffered_inputs[0]
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    of_policy_, of_critic, policy, q = dense_losses(trainer, batch, beta=0.3)
    assert loss.item() == pytest.approx(of_policy_.item(), abs=2e-5)
    total, *_, count = trainer._sums[-1]
    assert (total / count).item() == pytest.approx(of_critic.item(), abs=2e-5)
    if kind == "adapters":  # whose dense gradient is that of merged weights
        assert all(one.grad.abs().max() > 0 for one in trainer.critic.trained)
        assert not any(one.requires_grad for one in trainer.critic.trained)
        return
    of_policy_.backward()
    of_critic.backward()
    for model, found in ((policy, list(trainer.model.parameters())), (q, trainer.critic.trained)):
        expected = torch.cat([one.grad.flatten() for one in model.parameters()])
        assert distance(torch.cat([one.grad.flatten() for one in found]).double(), expected) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_both_networks_learn_and_the_slow_copy_follows(build, kind):
    trainer = build(critic=kind, max_steps=1)
    before = parameters(trainer), [one.detach().clone() for one in trainer.critic.slow]
    trainer.train()
    critic = trainer.critic
    assert not same(parameters(trainer), before[0])
    moved = [not torch.equal(own, old) for own, old in zip(critic.trained, before[1], strict=True)]
    assert any(moved)
    for own, slow, old in zip(critic.trained, critic.slow, before[1], strict=True):
        torch.testing.assert_close(slow, 0.5 * own + 0.5 * old)
    optimized = {one for group in trainer.optimizer.param_groups for one in group["params"]}
    assert not optimized & {*critic.trained, *critic.slow}


@pytest.mark.parametrize(
    ("config", "number"),
    [
        (LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]), 6),  # A and B of two layers and the embedding
        (LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[2, 3]), 5),
        (LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"], init_lora_weights=False), 9),
        (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), 2),
    ],
)
def test_all_weights_of_an_adapter_are_copied_and_trained(build, config, number):
    trainer = build(critic="adapters", peft_config=config, max_steps=2)
    critic = trainer.critic
    before = [one.detach().clone() for one in critic.trained]
    assert len(before) == number
    assert all(map(torch.equal, critic.slow, before))
    trainer.train()
    assert not any(map(torch.equal, critic.trained, before))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]), "lora_embedding_A.default"),
        (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "ia3_l.default"),
    ],
)
def test_adapter_that_is_trained_further_starts_at_its_reference(model_dir, build, config, name):
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), config)
    for key, parameter in policy.named_parameters():
        if key.endswith(name):
            torch.nn.init.normal_(parameter)
    trainer = build(model=policy, critic="head", peft_config=None, max_steps=1)
    trainer.train()
    assert logged(trainer, "etpo/kl") == [pytest.approx(0.0, abs=1e-6)]


def test_critic_gives_no_gradient_to_weights_of_the_base(build):
    trainer = build(critic="adapters")
    base = trainer.model.get_base_model().lm_head.weight.requires_grad_(True)
    with trainer.critic.training():
        trainer.model(input_ids=torch.ones(1, 2, dtype=torch.long)).logits.sum().backward()
    assert base.grad is None
    assert base.requires_grad
    assert all(one.grad is not None for one in trainer.critic.trained)


def test_policy_follows_the_critic(run):
    zero, ten = (run(critic_learning_rate=0.0, max_steps=1, optim="sgd", huber_delta=delta) for delta in (1.0, 9.0))
    assert same(parameters(zero), parameters(ten))  # the critic's loss has no part in the policy's gradient
    learned = run(critic_learning_rate=0.1, max_steps=2, optim="sgd")
    assert not same(parameters(learned), parameters(run(critic_learning_rate=0.0, max_steps=2, optim="sgd")))


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_micro_batches_are_one(run, kind):
    settings = {"critic": kind, "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1, "max_steps": 2}
    whole = run(**settings)
    split = run(**settings, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert distance(flat(parameters(split)), flat(parameters(whole))) < 1e-5
    of_critics = [torch.cat([one.detach().flatten() for one in t.critic.trained]) for t in (split, whole)]
    assert distance(*of_critics) < 1e-5
    for name in ("etpo/q_loss", "etpo/q", "etpo/value", "etpo/kl", "etpo/policy_loss"):
        assert logged(split, name) == pytest.approx(logged(whole, name), abs=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_is_the_uninterrupted_one(run, tmp_path, kind):
    steps = {"critic": kind, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = run(output_dir=tmp_path / "whole", **steps)
    run(output_dir=tmp_path / "parts", callbacks=[StopAt(2)], **steps)
    second = run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-2"), **steps)
    assert same(parameters(second), parameters(whole))
    for name in ("trained", "slow"):
        assert all(map(torch.equal, getattr(second.critic, name), getattr(whole.critic, name)))
    assert logged(second, "etpo/q_loss")[-2:] == logged(whole, "etpo/q_loss")[-2:]
    (tmp_path / "parts" / "checkpoint-2" / "critic.pt").unlink()
    with pytest.raises(ValueError, match=r"critic\.pt is damaged \(the file does not exist\)"):
        run(output_dir=tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-2"), **steps)


def test_controller_turns_beta(run):
    hold = {"law": "pi", "knob": "beta", "target": 9.0, "kp": 1.0, "ki": 0.1, "high": 5.0}
    trainer = run(controllers={"hold": hold}, max_steps=3)
    values = logged(trainer, "knobs/beta")
    assert values[0] == 0.3
    assert 0.3 < values[1] <= values[2] == pytest.approx(5.0)
    batch = trainer._buffered_inputs[0]
    loss = trainer._compute_loss(trainer.model, batch).item()
    assert loss == pytest.approx(dense_losses(trainer, batch, beta=trainer.kl_coef)[0].item(), abs=1e-4)


def test_evaluation_trains_nothing(run, build):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    evaluated = run(max_steps=2, eval_dataset=build().train_dataset.select(range(4)), **settings)
    plain = run(max_steps=2)
    # up to rounding: an evaluation draws random numbers, and so the rows of a rollout get another order
    assert distance(flat(parameters(evaluated)), flat(parameters(plain))) < 1e-5
    assert logged(evaluated, "eval_loss")
    assert logged(evaluated, "etpo/q_loss") == pytest.approx(logged(plain, "etpo/q_loss"), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta must be a number > 0, got 0.0"),
        ({"gamma": 1.5}, "gamma must be a number >= 0 and <= 1, got 1.5"),
        ({"critic": "modl"}, "unknown critic 'modl'. Did you mean 'model'?"),
        ({"huber_delta": 0}, "huber_delta must be a number > 0, got 0"),
        ({"positive_advantage_coef": 0.5}, "token_weights.sign acts on advantages"),
        ({"loss_terms": {"kl_cov": {}}}, "loss_terms.kl_cov acts on advantages"),
        ({"entropy_control": "entropy_guided", "entropy_target": 1.0}, "positive_advantage_coef acts on advantages"),
        ({"entropy_control": "hold", "entropy_target": 1.0}, "hold cannot turn entropy_coef in EtpoTrainer: its KL"),
        ({"entropy_coef": 0.1}, "entropy_coef would do nothing in EtpoTrainer: its KL penalty keeps the entropy up"),
        ({"fast_step": True}, "beta > 0 also trains on completions with advantage 0"),
        ({"critic": "adapters", "peft_config": None}, "critic='adapters' needs a policy with an adapter"),
        ({"peft_config": LoraConfig(**ADAPTER)}, "this one is an adapter: set critic='adapters'"),
        ({"critic": "head", "peft_config": LoraConfig(**ADAPTER, modules_to_save=["lm_head"])}, "weights of the LM"),
        ({"critic": "adapters", "peft_config": LoraConfig(**ADAPTER, bias="lora_only")}, "PEFT allows only one with"),
        (
            {"critic": "head", "peft_config": LoraConfig(**ADAPTER, init_lora_weights="pissa")},
            "'pissa' changes the base",
        ),
        ({"rollout_func": None}, r"ETPO trains on the steps of an environment: pass rollout_func=Episodes"),
    ],
)
def test_what_is_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_rollouts_without_step_rewards_end_the_run(build):
    def without(prompts, trainer):
        ids = [[2, 3]] * len(prompts)
        return {"prompt_ids": ids, "completion_ids": ids, "logprobs": None, "attempts": [1] * len(prompts)}

    with pytest.raises(ValueError, match="does not return step_rewards, which ETPO trains on"):
        build(rollout_func=without).train()


def test_reward_funcs_may_be_left_out(model_dir, build):
    given = build()
    trainer = EtpoTrainer(
        model_dir, args=given.args, train_dataset=given.train_dataset, rollout_func=Episodes(lambda: None)
    )
    assert trainer.reward_func_names == ["environment_score"]


@pytest.mark.filterwarnings(r"ignore:`gradient_checkpointing_\w+` is deprecated:FutureWarning")  # TRL's own calls
@pytest.mark.parametrize("kind", ["model", "adapters"])
def test_checkpointed_activations_change_nothing(run, kind, monkeypatch):
    calls, checkpointed = [], modeling_layers.GradientCheckpointingLayer.__call__

    def call(layer, *args, **kwargs):
        calls.append(layer.gradient_checkpointing and layer.training and torch.is_grad_enabled())
        return checkpointed(layer, *args, **kwargs)

    monkeypatch.setattr(modeling_layers.GradientCheckpointingLayer, "__call__", call)
    settings = {"critic": kind, "max_steps": 2, "optim": "sgd", "learning_rate": 0.1}
    kept, made_again = run(**settings), run(**settings, gradient_checkpointing=True)
    assert sum(calls) == 2 * 2 * 2  # layers of policy and critic, in two steps
    assert distance(flat(parameters(made_again)), flat(parameters(kept))) < 1e-6
    critics = [torch.cat([one.detach().flatten() for one in t.critic.trained]) for t in (made_again, kept)]
    assert distance(*critics) < 1e-6


# The critic on the states of the policy


def test_tokens_that_were_not_written_share_the_value_of_the_state(model_dir):
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=2e-3)
    critic = HeadOnStates(AutoModelForCausalLM.from_pretrained(model_dir), adam, torch.device("cpu"))
    states, mask = torch.randn(8, 4, 16), torch.ones(8, 4, dtype=torch.bool)
    written = torch.randint(0, 4, (32,))  # the other 18 tokens never

    def values() -> torch.Tensor:
        net = critic.states_and_head({}, states, mask)
        return net.head.logits(net.states)

    assert (values() == 0).all()
    for _ in range(60):
        critic.optimizer.zero_grad()
        critic_loss(values().gather(1, written[:, None]), torch.full((32, 1), -1.0), 10.0).mean().backward()
        critic.optimizer.step()
    found = values().detach()
    assert found.gather(1, written[:, None]).mean() == pytest.approx(-1.0, abs=0.05)
    assert found[:, 4:].mean() == pytest.approx(-1.0, abs=0.2)
