"""What the tests of the trainer share: episodes that follow from the prompt, a trainer on them, dense formulas."""

from copy import deepcopy

import torch
from datasets import Dataset
from toy import build_trainer, number, sums

from trl_entropy.etpo import EtpoConfig, EtpoTrainer, environment_score
from trl_entropy.etpo.networks import active_adapter
from trl_entropy.etpo.targets import critic_loss, policy_loss, soft_state


ADAPTER = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "up_proj"]}


def given_steps(prompts, trainer) -> dict:
    """Two actions of random tokens with an observation between them; every fourth episode ends after the first."""
    rows = {name: [] for name in ("prompt_ids", "completion_ids", "env_mask", "step_rewards", "attempts")}
    for place, prompt in enumerate(prompts):
        repetition = place % 4
        generator = torch.Generator().manual_seed(100 * number(prompt) + repetition)
        ids, mask, rewards = [], [], []
        for turn in range(2 if repetition else 1):
            words = torch.randint(2, 22, (1 + (repetition + turn) % 3,), generator=generator).tolist()
            answer = [] if turn or not repetition else [12, 13]
            ids += [*words, *answer]
            mask += [1] * len(words) + [0] * len(answer)
            rewards += [0.0] * (len(words) - 1) + [float(words[-1] % 3 - 1)] + [0.0] * len(answer)
        start = trainer.processing_class(prompt)["input_ids"]
        for name, value in zip(rows, (start, ids, mask, rewards, sum(mask)), strict=True):
            rows[name].append(value)
    return {**rows, "logprobs": None}


def build_etpo(model, output_dir, dataset: Dataset | None = None, **settings) -> EtpoTrainer:
    """A trainer on the CPU, with a policy and a critic that move fast."""
    settings = {
        "trainer_class": EtpoTrainer,
        "config_class": EtpoConfig,
        "reward_funcs": environment_score,
        "rollout_func": given_steps,
        "beta": 0.3,
        "critic_learning_rate": 1e-2,
        "polyak": 0.5,
        **settings,
    }
    return build_trainer(model, dataset or sums(), output_dir, **settings)


def critics(trainer) -> list:
    """Q and its slow copy as models in float64."""
    critic = trainer.critic
    if trainer.args.critic == "model":
        return [plain_copy(model) for model in critic.models]
    found = []
    for name in critic.names:
        with active_adapter(trainer.model, name):
            found.append(plain_copy(trainer.model))
    return found


def reference(trainer):
    """The initial policy in float64."""
    if trainer.ref_model is not None:
        return plain_copy(trainer.ref_model)
    return plain_copy(deepcopy(trainer.model).unload())


def plain_copy(model):
    """The same policy in float64, without what TRL does to the forward pass of its own."""
    if hasattr(model, "merge_and_unload"):
        model = deepcopy(model).merge_and_unload()
    copy = type(model)(model.config).double()
    copy.load_state_dict(model.state_dict())
    return copy


def raw_logits(model, batch: dict) -> torch.Tensor:
    """`(B, T, V)`: what a model says about each token of the completions."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    return model(input_ids=ids, attention_mask=attention).logits[:, -batch["completion_ids"].shape[1] - 1 : -1]


def of_policy(batch: dict) -> torch.Tensor:
    """Bool `(B, T)`: the tokens that the policy wrote."""
    return (batch["completion_mask"] * batch["tool_mask"]).bool()


def dense_logps(model, batch: dict, temperature: float) -> torch.Tensor:
    return (raw_logits(model, batch) / temperature).log_softmax(-1)


def dense_states(trainer, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """V by the slow critic and KL of every token, over the whole vocabulary at once."""
    with torch.no_grad():
        models = plain_copy(trainer.model), reference(trainer)
        logps = [dense_logps(model, batch, trainer.temperature) for model in models]
        return soft_state(*logps, raw_logits(critics(trainer)[1], batch))


def dense_losses(trainer, batch: dict, beta: float):
    """The two losses of one micro-batch as means over its tokens, and the models that they are of."""
    policy, q = plain_copy(trainer.model), critics(trainer)[0]
    mask = of_policy(batch)
    values = raw_logits(q, batch)
    chosen = values.gather(-1, batch["completion_ids"].unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        ref_logps = dense_logps(reference(trainer), batch, trainer.temperature)
    of_policy_ = policy_loss(dense_logps(policy, batch, trainer.temperature), ref_logps, values, beta)
    of_critic = critic_loss(chosen, batch["targets"].double(), trainer.args.huber_delta)
    return of_policy_[mask].mean(), of_critic[mask].mean(), policy, q
