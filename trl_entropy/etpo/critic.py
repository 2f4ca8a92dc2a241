"""The critic: a network with a value for every entry of the vocabulary, and a slow copy of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from functools import cached_property

import torch
from accelerate.utils import broadcast, fsdp2_apply_ac, fsdp2_prepare_model, recursively_apply
from peft import PeftModel, PeftType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from transformers.modeling_layers import GradientCheckpointingLayer

from .._seam import split_as, split_parameters, whole
from ..checks import damaged
from .networks import active_adapter, head_of, states_before
from .vocabulary import Head, StatesAndHead


KINDS = ("model", "adapters", "head")
WIDTHS = (1024, 512)  # widths of a head's hidden layers, as in the authors' ETPOCritic
SHARED = 10.0  # how much faster the value shared by all tokens is learnt than the part of each token


class Critic:
    r"""
    \\( Q(s, v) \\) for every entry of the vocabulary, and its slow copy \\( \bar Q \\).

    Args:
        optimizer (`Callable[[list[nn.Parameter]], torch.optim.Optimizer]`):
            Builds the optimizer of `trained`.
    """

    def __init__(self, optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]):
        self._build_optimizer = optimizer
        for parameter in self.slow:
            parameter.requires_grad_(False)

    def parameters(self, slow: bool = False) -> list[nn.Parameter]:
        """The parameters of the critic, or of its slow copy in the same order."""
        raise NotImplementedError

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters of the critic."""
        return self.parameters()

    @property
    def slow(self) -> list[nn.Parameter]:
        """The parameters of the slow copy."""
        return self.parameters(slow=True)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of `trained`; built when first used, because FSDP replaces the parameters of a policy."""
        return self._build_optimizer(self.trained)

    def states_and_head(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> StatesAndHead:
        """
        The states and head of the critic, or of its slow copy, at the `N` tokens of a batch in the mask `(B, T)`.

        `states` `(B, T, D)` are the policy's, without gradient.
        """
        raise NotImplementedError

    def head(self, slow: bool = False) -> Head:
        """The head of the critic, or of its slow copy."""
        raise NotImplementedError

    @contextmanager
    def training(self) -> Iterator[None]:
        """A context for the forward and backward pass of the critic's loss."""
        yield

    def freeze(self) -> None:
        """Turn off the gradient of critic parameters that are among the policy's parameters."""

    def step(self, accelerator, max_norm: float, polyak: float) -> float:
        """Step the optimizer with the mean gradient of all ranks, then move the slow copy; return the norm."""
        trained, optimizer = self.trained, self.optimizer
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if not isinstance(parameter, DTensor):  # FSDP has averaged the gradient of its own
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
        norm = whole(clip_grad_norm_(trained, max_norm if max_norm > 0 else float("inf"))).item()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for own, slow in zip(trained, self.slow, strict=True):
                slow.lerp_(own.to(slow.dtype), 1 - polyak)
        return norm

    def state_dict(self) -> dict:
        """The state for a checkpoint, the same for any number of ranks; under FSDP, every rank must call this."""
        parts = {"trained": self.trained, "slow": self.slow, "optimizer": self.optimizer.state_dict()}
        return recursively_apply(lambda one: whole(one.detach()).cpu(), parts)

    def load_state_dict(self, state: dict, source: str) -> None:
        """Restore the state from a checkpoint. Raises `ValueError` if it belongs to another critic."""
        trained = self.trained
        for name, parameters in (("trained", trained), ("slow", self.slow)):
            if [one.shape for one in parameters] != [one.shape for one in state.get(name, [])]:
                raise damaged(source, "it belongs to another critic")
            with torch.no_grad():
                for parameter, saved in zip(parameters, state[name], strict=True):
                    parameter.copy_(split_as(parameter, saved))
        of_parameters = state["optimizer"]["state"]
        for at, values in of_parameters.items():
            like = trained[at]
            of_parameters[at] = {
                key: split_as(like, one) if isinstance(one, Tensor) and one.shape == like.shape else one
                for key, one in values.items()
            }
        self.optimizer.load_state_dict(state["optimizer"])


class WholeModel(Critic):
    """A copy of the policy whose LM logits are Q, as published; under FSDP it is split over the ranks too."""

    def __init__(self, policy: nn.Module, optimizer: Callable, accelerator, checkpointing: bool):
        if isinstance(policy, PeftModel):
            raise ValueError("critic='model' copies a whole policy, but this one is an adapter: set critic='adapters'")
        self.models = [deepcopy(policy), deepcopy(policy)]
        for model in self.models:
            model.__dict__.pop("forward", None)  # TRL's forward, which would run the original policy
            head_of(model)  # raises ValueError for a head that is not one linear layer
        if checkpointing:  # transformers >= 5.24 has another name for this
            old = "gradient_checkpointing_enable"
            name = "activation_checkpointing_enable" if hasattr(policy, "activation_checkpointing_enable") else old
            getattr(self.models[0], name)({"use_reentrant": False})
            for module in self.models[0].modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True  # only these: dropout stays off
        if accelerator.is_fsdp2:
            if accelerator.state.fsdp_plugin.activation_checkpointing:
                accelerator.state.fsdp_plugin.set_auto_wrap_policy(self.models[0])
                self.models[0] = fsdp2_apply_ac(accelerator, self.models[0])
            self.models = [fsdp2_prepare_model(accelerator, model) for model in self.models]
        super().__init__(optimizer)

    def parameters(self, slow: bool = False) -> list[nn.Parameter]:
        return [one for _, one in split_parameters(self.models[slow])]

    def states_and_head(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> StatesAndHead:
        return StatesAndHead(states_before(self.models[slow], batch)[mask], self.head(slow))

    def head(self, slow: bool = False) -> Head:
        return head_of(self.models[slow])


class Adapters(Critic):
    """
    Two more adapters of the policy; ours. Base and LM head are shared with the policy.

    The policy's optimizer, DDP and the norm of the policy's gradient never see them.
    """

    names = ("etpo_q", "etpo_q_slow")

    def __init__(self, policy: nn.Module, optimizer: Callable):
        if not isinstance(policy, PeftModel):
            raise ValueError("critic='adapters' needs a policy with an adapter: set use_peft, or critic='model'")
        self.policy, config = policy, policy.peft_config[policy.active_adapter]
        if config.peft_type == PeftType.ADALORA or getattr(config, "bias", "none") != "none":
            raise ValueError(
                "critic='adapters' adds two adapters, but PEFT allows only one with AdaLoRA or a bias: use LoRA with "
                "bias='none', or critic='head'"
            )
        config = copy(config)
        for name in ("init_lora_weights", "init_weights", "init_ia3_weights"):  # Q starts at the base model's logits
            if isinstance(getattr(config, name, None), bool) or name == "init_lora_weights":
                setattr(config, name, True)
        for name in self.names:
            policy.add_adapter(name, config)
        if not self.trained:
            raise ValueError(
                f"critic='adapters' needs adapters with weights of their own, and {type(config).__name__} has none: "
                "use LoRA, or critic='head'"
            )
        with torch.no_grad():
            for own, slow in zip(self.trained, self.slow, strict=True):
                slow.copy_(own)
        super().__init__(optimizer)
        self.freeze()

    def parameters(self, slow: bool = False) -> list[nn.Parameter]:
        adapter = self.names[slow]
        return [one for name, one in split_parameters(self.policy) if adapter in name.split(".")]

    def freeze(self) -> None:
        """Turn off their gradient, which they only have within `training()`."""
        for parameter in (*self.trained, *self.slow):
            parameter.requires_grad_(False)

    @contextmanager
    def training(self) -> Iterator[None]:
        with active_adapter(self.policy, self.names[0], tuple(self.trained)):
            yield

    def states_and_head(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> StatesAndHead:
        name = self.names[slow]
        # Within `training()` it is already active and has its gradient
        with nullcontext() if self.policy.active_adapter == name else active_adapter(self.policy, name):
            return StatesAndHead(states_before(self.policy, batch)[mask], self.head(slow))

    def head(self, slow: bool = False) -> Head:
        return head_of(self.policy)


class HeadOnStates(Critic):
    r"""
    Two hidden layers on the policy's states, with no gradient into the policy; ours, as wide as ETPOCritic.

    \\( Q \\) is a value of the state, shared by all tokens, plus a part for each token. Only written tokens are
    trained. Without the shared value, the others would stay at 0 and look better than tokens with a negative reward.

    Reference: [Dueling Network Architectures for Deep Reinforcement Learning](https://huggingface.co/papers/1511.06581)
    """

    def __init__(self, policy: nn.Module, optimizer: Callable, device: torch.device):
        words, width = head_of(policy).weight.shape
        layers = [nn.Linear(width, WIDTHS[0]), nn.GELU(), nn.Linear(*WIDTHS), nn.GELU()]
        trunk, value, last = nn.Sequential(*layers), nn.Linear(WIDTHS[1], 1), nn.Linear(WIDTHS[1] + 1, words)
        for layer in (value, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(last.weight[:, -1])  # of the shared value
        net = nn.ModuleList([trunk, value, last]).to(device)
        self.nets = [net, deepcopy(net)]
        super().__init__(optimizer)

    def parameters(self, slow: bool = False) -> list[nn.Parameter]:
        return list(self.nets[slow].parameters())

    def states_and_head(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> StatesAndHead:
        trunk, value, _ = self.nets[slow]
        hidden = trunk(states[mask].float())
        return StatesAndHead(torch.cat([hidden, SHARED * value(hidden)], dim=-1), self.head(slow))

    def head(self, slow: bool = False) -> Head:
        last = self.nets[slow][2]
        return Head(last.weight, last.bias)


def build_critic(kind: str, policy: nn.Module, optimizer: Callable, accelerator, checkpointing: bool) -> Critic:
    """
    Build a policy's critic, one of [`KINDS`], the same on every rank. Raises `ValueError` if the policy does not fit.
    """
    if kind == "model":
        critic = WholeModel(policy, optimizer, accelerator, checkpointing)
    elif kind == "adapters":
        critic = Adapters(policy, optimizer)
    else:
        critic = HeadOnStates(policy, optimizer, accelerator.device)
    for parameter in (*critic.trained, *critic.slow):
        if not isinstance(parameter, DTensor):  # each rank drew them with its own random numbers
            parameter.data.copy_(broadcast(parameter.data.to(accelerator.device)))
    return critic
