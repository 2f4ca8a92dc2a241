"""What ETPO reads of a causal language model: its hidden states, its LM head, and its adapters one by one."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from inspect import signature

import torch
from peft import PeftModel
from torch import Tensor, nn

from .._seam import HiddenStates, check_plain_head, whole
from .vocabulary import Head


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
    return Head(whole(head.weight), None if head.bias is None else whole(head.bias), temperature)


def states_before(model: nn.Module, batch: dict) -> Tensor:
    """`(B, T, D)`: the last hidden states of a model before each token of the completions."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": attention, "use_cache": False}
    if "logits_to_keep" in signature(plain(model).forward).parameters:
        inputs["logits_to_keep"] = 1  # nothing reads the logits, but only a whole forward pass works under FSDP
    kept = HiddenStates(model)
    try:
        model(**inputs)
    finally:
        kept.remove()
    return kept.states[:, -batch["completion_ids"].shape[1] - 1 : -1]


@contextmanager
def active_adapter(model: PeftModel, name: str | None, trained: tuple[nn.Parameter, ...] = ()) -> Iterator[None]:
    """
    Make an adapter, or none, the active one; `trained` gets a gradient, and other parameters keep theirs.

    PEFT turns off the gradient of inactive adapters, and thereby of a loss whose backward pass is still to come.
    """
    before, flags = model.active_adapter, [(one, one.requires_grad) for one in model.parameters()]

    def keep_flags() -> None:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    if name is not None:
        model.set_adapter(name)
        keep_flags()
    for parameter in trained:
        parameter.requires_grad_(True)
    try:
        with model.disable_adapter() if name is None else nullcontext():
            yield
    finally:
        if name is not None:
            model.set_adapter(before)
        keep_flags()  # without an adapter too: a forward pass under FSDP puts other objects in their place
