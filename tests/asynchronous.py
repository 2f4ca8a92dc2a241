"""TRL's asynchronous trainer on a CPU: what it asks of a GPU or of vLLM is replaced, all else is TRL's."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import torch
from datasets import Dataset
from packaging.version import Version
from torch.nn.functional import scaled_dot_product_attention

from trl_entropy import with_entropy_control
from trl_entropy.families import ASYNC_GRPO, installed_trl


os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

HAS_ASYNC = Version(installed_trl()) >= Version(ASYNC_GRPO.since)
SIZE = 4  # completions of a group


def home():
    """The module in which TRL has the trainer, with what it uses."""
    return sys.modules[ASYNC_GRPO.trainer_class().__module__]


def attention(q, k, v, cu_q, cu_k, max_q, max_k, softmax_scale=None, causal=True, window_size=(-1, -1)):
    """What TRL's trainer asks of the FlashAttention 3 kernel, which needs a GPU, segment by segment."""
    outputs, groups = [], q.shape[1] // k.shape[1]
    for of_q, of_k in zip(zip(cu_q[:-1], cu_q[1:], strict=True), zip(cu_k[:-1], cu_k[1:], strict=True), strict=True):
        query, key, value = q[slice(*of_q)], k[slice(*of_k)], v[slice(*of_k)]
        key, value = (part.repeat_interleave(groups, 1).transpose(0, 1) for part in (key, value))
        mask = torch.ones(len(query), key.shape[1], dtype=torch.bool).tril(key.shape[1] - len(query))
        part = scaled_dot_product_attention(query.transpose(0, 1), key, value, attn_mask=mask, scale=softmax_scale)
        outputs.append(part.transpose(0, 1))
    return torch.cat(outputs)


def on_the_cpu(monkeypatch) -> None:
    """Replace the kernel of TRL's tree attention, and what asks a GPU for its name."""
    of_trl = home().register_tree_attention.__globals__
    monkeypatch.setitem(of_trl, "_flash_attn", lambda: SimpleNamespace(flash_attn_varlen_func=attention))
    monkeypatch.setattr(home(), "get_peak_flops_per_device", lambda *args: None)


class NoTransfer:
    """TRL's protocol of a weight transfer, to nowhere."""

    def init_weight_transfer(self):
        pass

    pause = resume = destroy = init_weight_transfer

    def send_weights(self, iterator):
        for _ in iterator:
            pass


class Given:
    """
    TRL's protocol of a rollout worker: always the same completions, in the same order.

    Some of them have two parts with a tool's answer between them. The version of the policy that sampled completion
    `i` is `i % 3` behind that of the trainer, but at least 0.

    Args:
        rewards: the reward of each completion, by group and place in it.
        first: the number of the first completion.
    """

    def __init__(self, rewards=lambda group, member: float((group + member) % 3 == 0), first=0):
        self.rollout_buffer, self.metrics_queue = self, SimpleNamespace(get_nowait=self._no_metrics)
        self.rewards, self.version, self.count, self.taken = rewards, 0, first, []

    def _no_metrics(self):
        raise home().queue.Empty

    def start(self):
        pass

    def stop(self):
        pass

    def check_health(self, stale_after_s):
        pass

    def update_model_version(self, version):
        self.version = version

    def qsize(self) -> int:
        return 1

    def get(self, timeout=None):
        self.count += 1
        sample = self.sample(self.count - 1)
        self.taken.append((sample, self.version))
        return sample

    def sample(self, i: int):
        group, member = divmod(i, SIZE)
        shared, generator = torch.Generator().manual_seed(group), torch.Generator().manual_seed(1000 + i)
        prompt = torch.randint(2, 22, (3 + group % 2,), generator=shared)
        lengths = torch.randint(1, 6, (3,), generator=generator).tolist()
        parts = [(lengths[0], 1), *(((lengths[1], 0), (lengths[2], 1)) if i % 5 == 2 else ())]
        mask = torch.cat([torch.zeros(len(prompt)), *(torch.full((n,), float(own)) for n, own in parts)])
        ids = torch.cat([prompt, torch.randint(2, 22, (len(mask) - len(prompt),), generator=generator)])
        rewards = np.array([self.rewards(group, place) for place in range(SIZE)])
        return home().RolloutSample(
            prompt=[],
            completion=[],
            input_ids=ids.numpy(),
            completion_mask=mask.long().numpy(),
            old_log_probs=(-3 * torch.rand(len(mask), generator=generator) * mask).numpy(),
            advantage=float(((rewards - rewards.mean()) / (rewards.std() + 1e-8))[member]),
            model_version=max(0, self.version - i % 3),
            group_id=group,
            metrics={"reward": float(rewards[member]), "reward_std": float(rewards.std())},
        )


def build_async(
    model,
    output_dir,
    plain=False,
    trainer_class=None,
    config_class=None,
    worker=None,
    transfer=None,
    dataset=None,
    **arguments,
):
    """The asynchronous trainer, by default on given completions; `plain` for TRL's own."""
    control = (lambda cls: cls) if plain else with_entropy_control
    settings = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "token_budget": 0,
        "num_generations": SIZE,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "seed": 3,
        **arguments,
    }
    own = {name: settings.pop(name) for name in {"callbacks", "processing_class"} & settings.keys()}
    trainer = control(trainer_class or ASYNC_GRPO.trainer_class())(
        model=model,
        args=control(config_class or ASYNC_GRPO.config_class())(**settings),
        train_dataset=dataset or Dataset.from_dict({"prompt": ["unused"]}),
        rollout_worker=worker or Given(),
        weight_transfer=transfer or NoTransfer(),
        **own,
    )
    # The training loop sets these before it asks for a loss; a test may ask for one without the loop
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    return trainer
