"""The ETPO trainer, built on TRL's."""

import os
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy

from .._seam import Hooks, StepwiseGRPOTrainer, log_means
from .._seam.trimming import trained_mask
from ..checks import damaged
from ..families import Family, by_name
from ..rollouts.batch import picked
from ..trainer import EntropyControl
from .critic import build_critic
from .environments import environment_score, rewards_of_calls
from .family import BETA, ETPO
from .networks import REFERENCE, active_adapter, check_base, complete_reference, head_of, states_before
from .targets import critic_loss, soft_targets
from .vocabulary import StatesAndHead, policy_losses, soft_states


CRITIC_FILE = "critic.pt"
REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def check_distributed(accelerator: Accelerator) -> None:
    """Raise `ValueError` unless the processes hold their networks in a way that ETPO can read."""
    if accelerator.distributed_type not in REPLICATED and not accelerator.is_fsdp2:
        raise ValueError(
            f"ETPO trains with DDP and FSDP2, got {accelerator.distributed_type.value}: use "
            "recipes/accelerate/ddp.yaml, or set fsdp_version: 2"
        )
    if accelerator.is_fsdp2 and isinstance(accelerator.state.fsdp_plugin.cpu_offload, CPUOffloadPolicy):
        raise ValueError("ETPO reads LM heads on the GPU: set fsdp_offload_params: false")


class EtpoTrainer(EntropyControl, StepwiseGRPOTrainer):
    r"""
    Train a policy and a critic over the vocabulary on the steps of an environment.

    $$
    \mathcal{L}_\pi = \sum_v \pi_v \, (\beta (\log \pi_v - \log \rho_v) - Q_v), \qquad
    \mathcal{L}_Q = \mathrm{Huber}(y - Q(\text{token}))
    $$

    with the targets of [`~targets.soft_targets`], as a mean over the tokens that the policy wrote. The policy is taken
    at the sampling temperature. The arguments are those of [`~trl.GRPOTrainer`], `args` an [`EtpoConfig`].

    Args:
        rollout_func ([`Episodes`]), environment_factory (`Callable`):
            Exactly one of the two: `Episodes(environment)`, or `as_tool(environment)` for a model whose chat template
            supports tools.
        reward_funcs (`list[Callable]`, *optional*):
            Rewards that TRL only logs; they are not trained on. By default [`environment_score`] of the episodes.

    Raises `ValueError` without an environment, for a critic that does not fit the policy, or under FSDP1 or DeepSpeed.

    Reference: [Entropy-Regularized Token-Level Policy Optimization](https://huggingface.co/papers/2402.06700), 2024.
    """

    own_family: ClassVar[Family] = ETPO

    def __init__(self, *positional: Any, **named: Any) -> None:
        named = dict(**by_name(type(self), Hooks, positional), **named)
        episodes, tools = named.get("rollout_func"), named.get("environment_factory")
        if (episodes is None) == (tools is None):
            raise ValueError(
                "ETPO trains on the steps of an environment: pass rollout_func=Episodes(environment), or "
                "environment_factory=as_tool(environment)"
            )
        if episodes is not None and named.get("reward_funcs") is None:
            named["reward_funcs"] = [environment_score]
        super().__init__(**named)
        check_distributed(self.accelerator)
        self.kl_coef, self.beta = self.args.beta, 0.0  # TRL estimates its own KL penalty if `beta` is not 0
        self.knobs.add(BETA, lambda: self.kl_coef, lambda value: setattr(self, "kl_coef", value))
        policy = self.accelerator.unwrap_model(self.model)
        check_base(policy)
        complete_reference(policy)
        head_of(policy)  # raises ValueError for a head that is not one linear layer
        of_optim, settings = self.get_optimizer_cls_and_kwargs(self.args, policy)
        settings["lr"] = self.args.critic_learning_rate
        decay, checkpointing = self.args.weight_decay, self.args.gradient_checkpointing

        def build_optimizer(trained: list[nn.Parameter]) -> torch.optim.Optimizer:
            return of_optim([{"params": trained, "weight_decay": decay}], **settings)

        self.critic = build_critic(self.args.critic, policy, build_optimizer, self.accelerator, checkpointing)
        self._sums: list[Tensor] = []

    # StepwiseGRPOTrainer calls these

    def rewards_of_steps(self, ids: list, mask: list | None, completions: list, extra: dict) -> list[list[float]]:
        """The environment's rewards, at the last token of each action; one row per completion."""
        if self.environments:
            rows = zip(mask, completions, self.environments, strict=True)
            return [rewards_of_calls(own, messages, environment.rewards) for own, messages, environment in rows]
        if "step_rewards" not in extra:
            raise ValueError(
                "rollout_func does not return step_rewards, which ETPO trains on: use Episodes(environment)"
            )
        return extra["step_rewards"]

    def prepared_batch(self, batch: dict, rewards: Tensor) -> dict:
        """The batch of a rollout with `targets`, `(B, T)`, under the current policy and slow critic."""
        if "pixel_values" in batch:
            raise ValueError("ETPO does not support images: train on text problems")
        size, mask = self.args.per_device_train_batch_size, trained_mask(batch).bool()
        parts = [self._soft_states(picked(batch, slice(at, at + size))) for at in range(0, len(mask), size)]
        values, divergences = (torch.cat(part) for part in zip(*parts, strict=True))
        batch["targets"] = soft_targets(values, divergences, rewards, mask, self.kl_coef, self.args.gamma)
        if self.model.training:
            of_rank = [values[mask].sum(), divergences[mask].sum(), batch["targets"][mask].sum(), mask.sum()]
            value, divergence, target, count = self.accelerator.reduce(torch.stack(of_rank).double()).tolist()
            sums = {"value": value, "kl": divergence, "target": target}
            log_means(self, {f"etpo/{name}": total / max(count, 1.0) for name, total in sums.items()})
        return batch

    @torch.no_grad()
    def _soft_states(self, batch: dict) -> tuple[Tensor, Tensor]:
        """`V` from the slow critic and KL, `(B, T)`; 0 at tokens that are not trained on."""
        mask, policy = trained_mask(batch).bool(), self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast():
            states = states_before(policy, batch)
            critic = self.critic.states_and_head(batch, states, mask, slow=True)
            own = StatesAndHead(states[mask], head_of(policy, self.temperature))
            return tuple(
                torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, found)
                for found in soft_states(own, self._reference(batch, mask), critic)
            )

    @torch.no_grad()
    def _reference(self, batch: dict, mask: Tensor) -> StatesAndHead:
        """The frozen initial policy: a separate model, the base of the adapter, or the initial adapter."""
        model = self.accelerator.unwrap_model(self.model if self.ref_model is None else self.ref_model)
        name = REFERENCE if isinstance(model, PeftModel) and REFERENCE in model.peft_config else None
        with active_adapter(model, name) if isinstance(model, PeftModel) else nullcontext():
            return StatesAndHead(states_before(model, batch)[mask], head_of(model, self.temperature))

    def own_loss(self, batch: dict, states: Tensor, mask: Tensor, num_tokens: Tensor) -> Tensor:
        """
        The policy's loss: a sum over the trained tokens, divided by `num_tokens`. In training, this also runs the
        backward pass of the critic's loss, so that only one network has its activations in memory.

        Args:
            batch (`dict[str, torch.Tensor]`):
                A micro-batch with its `targets`.
            states (`torch.Tensor`):
                `(B, T, D)`: the policy's states, with gradient.
            mask (`torch.Tensor`):
                `(B, T)` bool: the tokens that the policy wrote.
            num_tokens (`torch.Tensor`):
                The number of these tokens in the optimizer step over all ranks, divided by the number of ranks.
        """
        with self.critic.training(), torch.set_grad_enabled(self.model.training):
            with self.accelerator.autocast():
                critic = self.critic.states_and_head(batch, states.detach(), mask)
            chosen = critic.head.chosen(critic.states, batch["completion_ids"][mask])
            losses = critic_loss(chosen, batch["targets"][mask], self.args.huber_delta)
            if self.model.training:
                (losses.sum() / num_tokens).backward()
        policy = self.accelerator.unwrap_model(self.model)
        own = StatesAndHead(states[mask], head_of(policy, self.temperature))
        with self.accelerator.autocast():
            reference = self._reference(batch, mask)
        # The head is read again: the backward pass has left FSDP's whole copy of it without memory
        of_critic = StatesAndHead(critic.states.detach(), self.critic.head())
        of_policy = policy_losses(own, reference, of_critic, self.kl_coef)
        if self.model.training:
            parts = (losses.sum(), chosen.sum(), of_policy.sum(), mask.sum())
            self._sums.append(torch.stack([part.detach().double() for part in parts]))
        return of_policy.sum() / num_tokens

    def save_networks(self, folder: str) -> None:
        """Write the critic, its slow copy and its optimizer beside a checkpoint; every rank must call this."""
        state = self.critic.state_dict()
        if self.args.should_save:
            torch.save(state, os.path.join(folder, CRITIC_FILE))

    def load_networks(self, folder: str) -> None:
        """Restore the critic, its slow copy and its optimizer. Raises `ValueError` for a checkpoint without them."""
        path = os.path.join(folder, CRITIC_FILE)
        if not os.path.isfile(path):
            raise damaged(path, "the file does not exist")
        self.critic.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), path)

    # Others call these

    def create_optimizer(self, *args, **kwargs):
        """As in transformers, for the policy only."""
        self.critic.freeze()
        return super().create_optimizer(*args, **kwargs)

    def end_step(self) -> None:
        """Step the critic, once all gradients of the optimizer step are there; then end the step as usual."""
        norm = self.critic.step(self.accelerator, self.args.critic_max_grad_norm, self.args.polyak)
        loss, q, of_policy, count = self.accelerator.reduce(torch.stack(self._sums).sum(0)).tolist()
        self._sums = []
        sums = {"q_loss": loss, "q": q, "policy_loss": of_policy}
        means = {f"etpo/{name}": total / max(count, 1.0) for name, total in sums.items()}
        log_means(self, {**means, "etpo/q_grad_norm": norm})
        super().end_step()
