"""The critic: a network with a value for every entry of the vocabulary, and a slow copy of it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from .._seam import check_plain_head
from ..checks import damaged
from .vocabulary import Head, Net


KINDS = ("model", "adapters", "head")
WIDTHS = (1024, 512)  # widths of a head's hidden layers, as in the authors' ETPOCritic
SHARED = 10.0  # how much faster the value shared by all tokens is learnt than the part of each token


def plain(model: nn.Module) -> nn.Module:
    """The causal language model without PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def head_of(model: nn.Module, temperature: float = 1.0) -> Head:
    """The LM head of a model. Raises `ValueError` unless the logits are those of one linear layer."""
    model = plain(model)
    check_plain_head(model.config, "ETPO")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"ETPO reads the weights of the LM head, but here it is a {type(head).__name__}: leave the head out of "
            "the adapter and the quantization"
        )
    return Head(head.weight, head.bias, temperature)


def states_before(model: nn.Module, batch: dict) -> Tensor:
    """`(B, T, D)`: the last hidden states of a model before each token of the completions."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    outputs = plain(model).base_model(input_ids=ids, attention_mask=attention, use_cache=False)
    return outputs.last_hidden_state[:, -batch["completion_ids"].shape[1] - 1 : -1]


@contextmanager
def active_adapter(model: PeftModel, name: str | None, trained: tuple[nn.Parameter, ...] = ()) -> Iterator[None]:
    """
    Make an adapter, or none, the active one; `trained` gets a gradient, and other parameters keep theirs.

    PEFT turns off the gradient of inactive adapters, and thereby of a loss whose backward pass is still to come.
    """
    if name is None:
        with model.disable_adapter():
            yield
        return
    before, flags = model.active_adapter, [(one, one.requires_grad) for one in model.parameters()]

    def activate(adapter: str) -> None:
        model.set_adapter(adapter)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    activate(name)
    for parameter in trained:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        activate(before)


class Critic:
    r"""
    \\( Q(s, v) \\) for every entry of the vocabulary, and its slow copy \\( \bar Q \\).

    Attributes:
        trained, slow (`list[nn.Parameter]`): the parameters of the critic and of its slow copy, in the same order.
        optimizer (`torch.optim.Optimizer`): the optimizer of `trained`; set by the trainer.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, trained: list[nn.Parameter], slow: list[nn.Parameter]):
        self.trained, self.slow = trained, slow
        for parameter in slow:
            parameter.requires_grad_(False)

    def net(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> Net:
        """
        The states and head of the critic, or of its slow copy, at the `N` tokens of a batch in the mask `(B, T)`.

        `states` `(B, T, D)` are the policy's, without gradient.
        """
        raise NotImplementedError

    @contextmanager
    def training(self) -> Iterator[None]:
        """A context for the forward and backward pass of the critic's loss."""
        yield

    def freeze(self) -> None:
        """Turn off the gradient of critic parameters that are among the policy's parameters."""

    def step(self, accelerator, max_norm: float, polyak: float) -> float:
        """Step the optimizer with the mean gradient of all ranks, then move the slow copy; return the norm."""
        for parameter in self.trained:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(gradient, reduction="mean")
        norm = clip_grad_norm_(self.trained, max_norm if max_norm > 0 else float("inf")).item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for own, slow in zip(self.trained, self.slow, strict=True):
                slow.lerp_(own.to(slow.dtype), 1 - polyak)
        return norm

    def state_dict(self) -> dict:
        """The state for a checkpoint."""
        parts = {"trained": self.trained, "slow": self.slow}
        state = {name: [one.detach().cpu() for one in parameters] for name, parameters in parts.items()}
        return {**state, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict, source: str) -> None:
        """Restore the state from a checkpoint. Raises `ValueError` if it belongs to another critic."""
        for name, parameters in (("trained", self.trained), ("slow", self.slow)):
            if [one.shape for one in parameters] != [one.shape for one in state.get(name, [])]:
                raise damaged(source, "it belongs to another critic")
            with torch.no_grad():
                for parameter, saved in zip(parameters, state[name], strict=True):
                    parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])


class WholeModel(Critic):
    """A copy of the policy whose LM logits are Q, as published."""

    def __init__(self, policy: nn.Module, checkpointing: bool):
        if isinstance(policy, PeftModel):
            raise ValueError("critic='model' copies a whole policy, but this one is an adapter: set critic='adapters'")
        self.models = [deepcopy(policy), deepcopy(policy)]
        for model in self.models:
            model.__dict__.pop("forward", None)  # TRL's forward, which would run the original policy
            head_of(model)
        if checkpointing:  # transformers >= 5.24 has another name for this
            old = "gradient_checkpointing_enable"
            name = "activation_checkpointing_enable" if hasattr(policy, "activation_checkpointing_enable") else old
            getattr(self.models[0], name)({"use_reentrant": False})
        super().__init__(*(list(model.parameters()) for model in self.models))

    def net(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> Net:
        model = self.models[slow]
        return Net(states_before(model, batch)[mask], head_of(model))


class Adapters(Critic):
    """
    Two more adapters of the policy; ours. Base and LM head are shared with the policy.

    The policy's optimizer, DDP and the norm of the policy's gradient never see them.
    """

    names = ("etpo_q", "etpo_q_slow")

    def __init__(self, policy: nn.Module):
        if not isinstance(policy, PeftModel):
            raise ValueError("critic='adapters' needs a policy with an adapter: set use_peft, or critic='model'")
        self.policy = policy
        found = []
        for name in self.names:
            policy.add_adapter(name, policy.peft_config["default"])
            found.append([one for key, one in policy.named_parameters() if f".{name}." in key])
        with torch.no_grad():
            for own, slow in zip(*found, strict=True):
                slow.copy_(own)
        super().__init__(*found)
        self.freeze()

    def freeze(self) -> None:
        """Turn off their gradient, which they only have within `training()`."""
        for parameter in (*self.trained, *self.slow):
            parameter.requires_grad_(False)

    @contextmanager
    def training(self) -> Iterator[None]:
        with active_adapter(self.policy, self.names[0], tuple(self.trained)):
            yield

    def net(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> Net:
        name = self.names[slow]
        # Within `training()` it is already active and has its gradient
        with nullcontext() if self.policy.active_adapter == name else active_adapter(self.policy, name):
            return Net(states_before(self.policy, batch)[mask], head_of(self.policy))


class OnPolicyStates(Critic):
    r"""
    Two hidden layers on the policy's states, with no gradient into the policy; ours, as wide as ETPOCritic.

    \\( Q \\) is a value of the state, shared by all tokens, plus a part for each token. Only written tokens are
    trained. Without the shared value, the others would stay at 0 and look better than tokens with a negative reward.

    Reference: [Dueling Network Architectures for Deep Reinforcement Learning](https://huggingface.co/papers/1511.06581)
    """

    def __init__(self, policy: nn.Module):
        head = head_of(policy).weight
        words, width = head.shape
        layers = [nn.Linear(width, WIDTHS[0]), nn.GELU(), nn.Linear(*WIDTHS), nn.GELU()]
        trunk, value, last = nn.Sequential(*layers), nn.Linear(WIDTHS[1], 1), nn.Linear(WIDTHS[1] + 1, words)
        for layer in (value, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(last.weight[:, -1])  # of the shared value
        net = nn.ModuleList([trunk, value, last]).to(head.device)
        self.nets = [net, deepcopy(net)]
        super().__init__(*(list(net.parameters()) for net in self.nets))

    def net(self, batch: dict, states: Tensor, mask: Tensor, slow: bool = False) -> Net:
        trunk, value, last = self.nets[slow]
        hidden = trunk(states[mask].float())
        shared = SHARED * value(hidden)
        return Net(torch.cat([hidden, shared], dim=-1), Head(last.weight, last.bias))


def build_critic(kind: str, policy: nn.Module, checkpointing: bool) -> Critic:
    """Build a policy's critic, one of [`KINDS`]. Raises `ValueError` if the policy does not fit it."""
    if kind == "model":
        return WholeModel(policy, checkpointing)
    return Adapters(policy) if kind == "adapters" else OnPolicyStates(policy)
