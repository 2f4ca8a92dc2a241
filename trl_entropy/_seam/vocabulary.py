"""Compute looks at the whole vocabulary at every token, without a (B, T, V) tensor."""

import threading
from collections.abc import Collection, Set
from contextlib import contextmanager
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from trl.trainer.utils import maybe_gather_lm_head_ctx

from ..rules.looks import Distributions, Entropy, Look, looks_among
from .sharding import whole


# Number of logits in memory at once: 128 MiB in float32, about 220 tokens with a vocabulary of 152,000
ENTRIES = 2**25


def unwrapped(model: nn.Module) -> nn.Module:
    """The causal language model without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class HiddenStates:
    """The last hidden states of a model's forward passes in this thread, kept by a hook in a `with`."""

    def __init__(self, model: nn.Module):
        self._thread = threading.get_ident()  # another one may generate with the model at the same time
        self.model = unwrapped(model)
        self.states: Tensor | None = None

    def __enter__(self) -> Self:
        self._hook = self.model.base_model.register_forward_hook(self._keep)
        return self

    def __exit__(self, *error) -> None:
        self._hook.remove()

    def before(self, length: int) -> Tensor:
        """`(B, T, D)`: the state before each of the last `length` tokens."""
        return self.states[:, -length - 1 : -1]

    def _keep(self, module, args, outputs) -> None:
        if threading.get_ident() == self._thread:
            self.states = outputs.last_hidden_state


class RowTemperatures:
    """
    Divide the logits of each row by its own number, through a hook on the backbones of these models.

    This works the same in sampling and scoring. The LM head is linear, so the hook divides the states before it.

    Raises `ValueError` for a model whose logits are not linear in its last hidden states.
    """

    def __init__(self, models: list[nn.Module]):
        self._values: Tensor | None = None
        self._row = 0
        for model in models:
            model = unwrapped(model)
            check_plain_head(model.config, "a temperature per prompt")
            if getattr(model.get_output_embeddings(), "bias", None) is not None:
                raise ValueError(
                    "a temperature per prompt does not work with an LM head that has a bias: drop the rule"
                )
            model.base_model.register_forward_hook(self._divide)

    @contextmanager
    def over(self, values: Tensor):
        """
        Within this context, forward passes go over rows with these temperatures `(B,)`, in this order and then again
        from the first.
        """
        before = self._values, self._row
        self._values, self._row = values, 0
        try:
            yield
        finally:
            self._values, self._row = before

    def _divide(self, module, args, outputs):
        if self._values is None:
            return
        states = outputs.last_hidden_state
        values = self._values[self._row : self._row + len(states)]
        self._row = (self._row + len(states)) % len(self._values)
        outputs.last_hidden_state = states / values.to(states.dtype).view(-1, 1, 1)


def check_plain_head(config: PreTrainedConfig, what: str) -> None:
    """Raise `ValueError` if the logits of a model with this config are not simply those of its LM head."""
    config = config.get_text_config()
    scaled = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    given = [name for name in scaled if getattr(config, name, None) not in (None, 1.0)]
    if given:
        raise ValueError(
            f"{what} does not work with logits that are changed after the LM head: {', '.join(given)} is set for this "
            "model"
        )


def check_whole_head(trainer, needs: Set) -> None:
    """Raise `ValueError` if a look has a gradient and the LM head, which gets a part of it, cannot be gathered."""
    with_gradient = sorted(str(look) for look in looks_among(needs) if look.has_gradient)
    zero3 = trainer.is_deepspeed_enabled and any(hasattr(one, "ds_id") for one in trainer.model.parameters())
    fsdp1 = trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2
    if with_gradient and (fsdp1 or zero3):
        raise ValueError(
            f"a loss term needs the gradient of {', '.join(with_gradient)} through the whole LM head, which FSDP1 and "
            "DeepSpeed ZeRO-3 split over ranks: use DDP, FSDP2 or ZeRO-2, or drop the term"
        )


def take_looks(
    model: nn.Module,
    before: Tensor,
    sampled: Tensor,
    temperature: float,
    of_rows: Tensor | None,
    looks: Collection[Look],
) -> dict[Look, Tensor]:
    """
    Looks at the vocabulary, `(B, T)` by look, in one pass of the LM head over a few tokens at a time.

    If gradients are on, looks with a gradient carry it: the backward pass then recomputes the logits, also a few
    tokens at a time.

    Args:
        model (`nn.Module`):
            A transformers causal language model, whose LM head is applied here.
        before (`torch.Tensor`):
            `(B, T, D)`: the last hidden state before each token.
        sampled (`torch.Tensor`):
            `(B, T)` int64: the tokens.
        temperature (`float`):
            Divisor of the logits.
        of_rows (`torch.Tensor`, *optional*):
            `(B,)`: the number by which each row's hidden states are already divided.
        looks (`Collection[Look]`):
            The looks to compute.

    Raises `ValueError` for a model whose logits are not simply those of its LM head.
    """
    names = ", ".join(sorted(map(str, looks)))
    check_plain_head(model.config, f"a rule that looks at the vocabulary ({names}) or entropy_measures='full'")
    with_gradient = torch.is_grad_enabled() and any(look.has_gradient for look in looks)
    temperatures = before.new_full((len(before), 1), temperature, dtype=torch.float32)
    if of_rows is not None:
        temperatures = temperatures * of_rows.view(-1, 1).to(temperatures)
    columns = before, sampled.to(before.device).unsqueeze(-1), temperatures.expand(sampled.shape).unsqueeze(-1)
    with torch.set_grad_enabled(with_gradient), _whole_head(model, before.device) as (weight, bias):

        def answers(states: Tensor, tokens: Tensor, of_tokens: Tensor) -> list[Tensor]:
            logits = nn.functional.linear(states.to(weight.dtype), weight, bias).float()
            at = Distributions((logits / temperature).log_softmax(-1), tokens.squeeze(-1), of_tokens)
            return [look(at if look.has_gradient else at._replace(logps=at.logps.detach())) for look in looks]

        size = max(1, ENTRIES // len(weight))
        chunks = zip(*(column.reshape(-1, column.shape[-1]).split(size) for column in columns), strict=True)
        again = partial(checkpoint, answers, use_reentrant=False, preserve_rng_state=False)
        parts = [again(*chunk) if with_gradient else answers(*chunk) for chunk in chunks]
    results = [torch.cat(of_look).view(sampled.shape) for of_look in zip(*parts, strict=True)]
    return dict(zip(looks, results, strict=True))


@torch.no_grad()
def prompt_entropies(model: nn.Module, states: Tensor, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    r"""
    Entropy in nats at the prompt's tokens, `(B, P - 1)`; NaN at the first token, which nothing predicts, and at
    padding.

    Args:
        states (`torch.Tensor`):
            `(B, P + T, D)`: last hidden states of prompt and completion.
        ids, mask (`torch.Tensor`):
            `(B, P)`: the prompts; the mask is 1 at tokens, 0 at padding.

    Other arguments and errors are as in [`take_looks`].
    """
    mask = mask.bool()
    before, look = states[:, : mask.shape[1] - 1], Entropy()
    entropies = take_looks(model, before, ids[:, 1:], temperature, None, [look])[look]
    return torch.where(mask[:, 1:] & mask[:, :-1], entropies, torch.nan)


@contextmanager
def _whole_head(model: nn.Module, device: torch.device):
    """Weight and bias of the LM head on this device; if they are sharded, every rank must call this."""
    head = model.get_output_embeddings()
    parameters = head.weight, getattr(head, "bias", None)
    with maybe_gather_lm_head_ctx(*parameters):  # DeepSpeed ZeRO-3
        yield [None if parameter is None else whole(parameter).to(device) for parameter in parameters]
