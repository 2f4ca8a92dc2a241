"""Parameters of which FSDP2 or DeepSpeed ZeRO-3 keeps a part on each rank."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, distribute_tensor


def part_of_rank(parameter: Tensor) -> Tensor:
    """This rank's part of a parameter, detached; all of it if it is not split."""
    parameter = getattr(parameter, "ds_tensor", parameter)  # DeepSpeed ZeRO-3
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach()


def whole(parameter: Tensor) -> Tensor:
    """
    A whole tensor: gathered if FSDP2 keeps a part of it on each rank, else as it is.

    The gradient of the result is averaged over the ranks, as FSDP2 does. All ranks must call this, and all must run
    the backward pass.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    full = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if full.requires_grad:
        full.register_hook(lambda gradient: gradient / mesh.size())
    return full


def split_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """
    A model's parameters by name, each rank's part. A forward pass without a backward pass leaves some of them whole,
    so FSDP2 splits them again first.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return model.named_parameters()


def split_as(parameter: Tensor, saved: Tensor) -> Tensor:
    """This rank's part of a whole tensor, as FSDP splits a parameter; the whole tensor without FSDP."""
    if not isinstance(parameter, DTensor):
        return saved
    return distribute_tensor(saved.to(parameter.device), parameter.device_mesh, parameter.placements)
