"""Read and set the state of a running trainer: its logs, its parameters and its knobs."""

import torch
from torch import Tensor
from trl.trainer import grpo_trainer

from ..control.names import CLIP_RATIOS
from .error import SeamError
from .sharding import part_of_rank
from .vocabulary import unwrapped


def log_means(trainer, means: dict[str, float]) -> None:
    """Log values of one optimizer step beside TRL's own; TRL averages them over `logging_steps`."""
    for name, value in means.items():
        trainer._metrics["train"][name].append(value)


def set_logged_entropy(trainer, value: float) -> None:
    """Log this as TRL's `entropy` of the optimizer step that just ended."""
    steps = trainer.current_gradient_accumulation_steps
    trainer._metrics["train"]["entropy"][-steps:] = [value] * steps


def logged_signal(trainer, name: str) -> float | None:
    """
    A signal of the optimizer step that just ended, from TRL's logs, the same on every rank.

    TRL averages over tokens and ranks in each micro-batch, and this is the mean of these values. `None` if TRL logs
    the signal elsewhere, or if no token was trained on. Raises [`SeamError`] if TRL logged no value.
    """
    steps = trainer.current_gradient_accumulation_steps
    logged, entropies = (trainer._metrics["train"].get(key, [])[-steps:] for key in (name, "entropy"))
    if name == "reward":  # TRL logs it when it generates
        if not _crosses_rollout(trainer, trainer._step - 1):
            return None
        logged = logged[-1:]
    if not logged:
        raise SeamError(
            f"TRL did not log {name} for this optimizer step, so there is nothing to control: it depends on "
            f"loss_type={getattr(trainer.args, 'loss_type', None)!r}, on use_liger_kernel=False, and on no callback "
            "before calling trainer.log"
        )
    masks = any(getattr(trainer, name, None) for name in ("mask_truncated_completions", "tools", "rollout_func"))
    if name != "reward" and masks:
        # TRL logs 0 for a micro-batch without a trained token
        logged = [value for value, entropy in zip(logged, entropies, strict=True) if entropy != 0]
    return sum(logged) / len(logged) if logged else None


def clipped_bounds(trainer) -> set[str]:
    """The bounds of the clip range, by knob, at which TRL logged clipped tokens in this run."""
    pending, rows = trainer._metrics["train"], trainer.state.log_history
    return {
        bound
        for bound, key in CLIP_RATIOS.items()
        if any(share > 0 for share in (*pending.get(key, ()), *(row.get(key, 0.0) for row in rows)))
    }


def rollout_ends(trainer) -> bool:
    """Whether the optimizer step that just ended was the last of its rollout batch; always with packed batches."""
    return not hasattr(trainer, "_buffered_inputs") or _crosses_rollout(trainer, trainer._step)


def _crosses_rollout(trainer, micro_batch: int) -> bool:
    """Whether the optimizer step that ends at this micro-batch ends a rollout batch."""
    size = trainer.args.steps_per_generation * trainer.args.num_iterations
    return micro_batch // size > (micro_batch - trainer.current_gradient_accumulation_steps) // size


def set_entropy_coef(trainer, value: float) -> None:
    """Set TRL's entropy bonus, also in a run that began without one."""
    trainer.entropy_coef = value
    trainer._entropy_bonus_enabled = True


def set_temperature(trainer, value: float) -> None:
    """
    Sample and score at this temperature from now on.

    Raises [`SeamError`] if we cannot find where TRL divides the logits by the temperature.
    """
    trainer.temperature = value
    if trainer.use_vllm:
        trainer.vllm_generation.temperature = value
    else:
        trainer.generation_config.temperature = trainer.generation_kwargs["temperature"] = value
    if not hasattr(grpo_trainer, "add_fused_lm_head"):
        return  # TRL < 1.15 divides the logits by trainer.temperature
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            _fused_temperature(trainer.accelerator.unwrap_model(model)).cell_contents = value


def _fused_temperature(model):
    """The cell in which TRL's fused LM head keeps its temperature."""
    model = unwrapped(model)
    forward = model.__dict__.get("_original_forward", model.forward)  # accelerate wraps it for mixed precision
    while forward is not None:
        function = getattr(forward, "__func__", forward)
        if "temperature" in function.__code__.co_freevars:
            return function.__closure__[function.__code__.co_freevars.index("temperature")]
        forward = getattr(function, "__wrapped__", None)
    raise SeamError(
        "the temperature of TRL's fused LM head was not found, so completions would not be scored at the temperature "
        "they were sampled at: drop the controller of temperature; this TRL version is not supported"
    )


def lower_learning_rate(optimizer, scheduler, factor: float) -> list[float]:
    """Multiply the learning rate of all parameter groups, now and as scheduled; returns the new rates."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if hasattr(scheduler, "base_lrs"):  # a scheduler that follows a metric has none, and continues from the groups
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    scheduler._last_lr = rates  # logged for the next step
    return rates


def check_finite(model, step: int, accelerator) -> None:
    """Raise `FloatingPointError` on all ranks if a parameter is not finite: sampling would fail unclearly."""
    finite = [part_of_rank(parameter).isfinite().all() for parameter in model.parameters()]
    faults = (
        ~torch.stack([flag.to(accelerator.device) for flag in finite])
    ).sum()  # with a device_map there are several devices
    if accelerator.reduce(faults, reduction="sum") > 0:
        raise FloatingPointError(
            f"the policy has parameters that are not finite after step {step}: resume from an earlier checkpoint "
            "with a smaller learning_rate or max_grad_norm, or in bf16 instead of fp16"
        )


def gradient_sample(trainer, most: int = 65536) -> Tensor:
    """
    `(D,)` float32, detached: up to `most` evenly spaced coordinates of this rank's part of the gradient.

    0 where a parameter has no gradient; empty with DeepSpeed, which does not expose the gradient.
    """
    device = trainer.accelerator.device
    trained = [] if trainer.is_deepspeed_enabled else [one for one in trainer.model.parameters() if one.requires_grad]
    stride = max(1, -(-sum(part_of_rank(parameter).numel() for parameter in trained) // most))
    parts, passed = [torch.zeros(0, device=device)], 0
    for parameter in trained:
        shard = part_of_rank(parameter if parameter.grad is None else parameter.grad).flatten()
        part = shard[-passed % stride :: stride].to(device, torch.float32)
        parts.append(part if parameter.grad is not None else torch.zeros_like(part))
        passed += len(shard)
    return torch.cat(parts)
