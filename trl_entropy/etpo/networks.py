"""What ETPO reads of a causal language model: its hidden states, its LM head, and its adapters one by one."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from inspect import signature

import torch
from peft import PeftModel
from torch import Tensor, nn

from .._seam import HiddenStates, check_plain_head, unwrapped, whole
from .vocabulary import Head


REFERENCE = "ref"  # TRL's name for the first state of an adapter that is trained further
KEEP_BASE = (True, False, "gaussian", "eva", "orthogonal")  # initial weights of LoRA that leave the base as it is


def head_of(model: nn.Module, temperature: float = 1.0) -> Head:
    """The LM head of a model. Raises `ValueError` unless the logits are those of one linear layer."""
    model = unwrapped(model)
    check_plain_head(model.config, "ETPO")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"ETPO reads the weights of the LM head, but here it is a {type(head).__name__}: leave the head out of "
            "the adapter and the quantization"
        )
    return Head(whole(head.weight), None if head.bias is None else whole(head.bias), temperature)


def check_base(policy: nn.Module) -> None:
    """Raise `ValueError` if an adapter has changed its base model, which ETPO takes as the initial policy."""
    if not isinstance(policy, PeftModel):
        return
    start = getattr(policy.peft_config[policy.active_adapter], "init_lora_weights", True)
    if start not in KEEP_BASE:
        raise ValueError(
            f"init_lora_weights={start!r} changes the base model, which ETPO takes as the initial policy: set it to "
            f"{', '.join(map(repr, KEEP_BASE[:-1]))} or {KEEP_BASE[-1]!r}, or merge a trained adapter into its base"
        )


@torch.no_grad()
def complete_reference(policy: nn.Module) -> None:
    """Copy what TRL leaves out of the reference of an adapter that is trained further: it compares `.default.`."""
    if not isinstance(policy, PeftModel) or REFERENCE not in policy.peft_config:
        return
    parameters = dict(policy.named_parameters())
    for name, parameter in parameters.items():
        of_reference = ".".join(REFERENCE if part == "default" else part for part in name.split("."))
        if of_reference != name and of_reference in parameters:
            parameters[of_reference].copy_(parameter)


def states_before(model: nn.Module, batch: dict) -> Tensor:
    """`(B, T, D)`: the last hidden states of a model before each token of the completions."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": attention, "use_cache": False}
    if "logits_to_keep" in signature(unwrapped(model).forward).parameters:
        inputs["logits_to_keep"] = 1  # nothing reads the logits, but only a whole forward pass works under FSDP
    with HiddenStates(model) as hidden:
        model(**inputs)
    return hidden.before(batch["completion_ids"].shape[1])


@contextmanager
def active_adapter(model: PeftModel, name: str | None, trained: tuple[nn.Parameter, ...] = ()) -> Iterator[None]:
    """
    Make an adapter, or none, the active one. If there are `trained` parameters, only they get a gradient.

    PEFT turns off the gradient of inactive adapters, and thereby of a loss whose backward pass is still to come; here
    all parameters have what they had afterwards.
    """
    before, flags = model.active_adapter, [(one, one.requires_grad) for one in model.parameters()]

    def set_flags(of: list[tuple[nn.Parameter, bool]]) -> None:
        for parameter, flag in of:
            parameter.requires_grad_(flag)

    if name is not None:
        model.set_adapter(name)
    set_flags([*((one, False) for one, _ in flags), *((one, True) for one in trained)] if trained else flags)
    try:
        with model.disable_adapter() if name is None else nullcontext():
            yield
    finally:
        if name is not None:
            model.set_adapter(before)
        set_flags(flags)  # without an adapter too: a forward pass under FSDP puts other objects in their place
