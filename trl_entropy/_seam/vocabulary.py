"""Looks at the whole vocabulary at every token, without a (B, T, V) tensor."""

import threading
from collections.abc import Collection, Set
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from trl.trainer.utils import maybe_gather_lm_head_ctx

from ..rules.looks import Distributions, Entropy, Look, looks_among


ENTRIES = 2**25  # logits that are held at once: 128 MiB in float32, about 220 tokens of a vocabulary of 152,000


class HiddenStates:
    """The last hidden states of a model's next forward passes in this thread, kept by a hook on its backbone."""

    def __init__(self, model: nn.Module):
        self._thread = threading.get_ident()  # another one may generate with the model at the same time
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.states: Tensor | None = None
        self._hook = self.model.base_model.register_forward_hook(self._keep)

    def _keep(self, module, args, outputs) -> None:
        if threading.get_ident() == self._thread:
            self.states = outputs.last_hidden_state

    def remove(self) -> None:
        self._hook.remove()


class RowTemperatures:
    """
    Divide the logits of each row by a number of its own, by a hook on the backbones of these models.

    Sampling and scoring go through it alike: the LM head is linear, so it is the states before it that are divided.

    Raises `ValueError` for a model whose logits are not linear in its last hidden states.
    """

    def __init__(self, models: list[nn.Module]):
        self._values: Tensor | None = None
        self._row = 0
        for model in models:
            model = model.get_base_model() if hasattr(model, "get_base_model") else model
            check_plain_head(model.config, "a temperature for each prompt")
            if getattr(model.get_output_embeddings(), "bias", None) is not None:
                raise ValueError("a temperature for each prompt does not know an LM head with a bias: drop it")
            model.base_model.register_forward_hook(self._divide)

    @contextmanager
    def over(self, values: Tensor | None):
        """
        Within this, forward passes go over rows with these temperatures `(B,)`, in this order and again from the
        first; `None` leaves them as they are.
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
    """Raise `ValueError` if the logits of a model with this config are not those of its LM head alone."""
    config = config.get_text_config()
    scaled = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    given = [name for name in scaled if getattr(config, name, None) not in (None, 1.0)]
    if given:
        raise ValueError(
            f"{what} does not know logits that are changed after the LM head: {', '.join(given)} is set for this model"
        )


def check_whole_head(trainer, needs: Set) -> None:
    """Raise `ValueError` if a look has a gradient, and the LM head, which gets a part of it, is split over ranks."""
    with_gradient = sorted(str(look) for look in looks_among(needs) if look.has_gradient)
    zero3 = trainer.is_deepspeed_enabled and any(hasattr(one, "ds_id") for one in trainer.model.parameters())
    if with_gradient and (trainer.is_fsdp_enabled or zero3):
        raise ValueError(
            f"a loss term needs the gradient of {', '.join(with_gradient)} by the whole LM head, which FSDP and "
            "DeepSpeed ZeRO-3 split over ranks: use DDP or ZeRO-2, or drop the term"
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
    Looks at the vocabulary, `(B, T)` by look, by one pass of the LM head over a few tokens at a time.

    Where gradients are on, the looks that have one carry it: the logits are then computed again in the backward pass,
    a few tokens at a time as well.

    Args:
        model (`nn.Module`):
            Causal language model of transformers; its LM head is applied here.
        before (`torch.Tensor`):
            `(B, T, D)`: the last hidden state before each token.
        sampled (`torch.Tensor`):
            `(B, T)` int64: the tokens.
        temperature (`float`):
            What the logits are divided by.
        of_rows (`torch.Tensor`, *optional*):
            `(B,)`: what the hidden states of each row are divided by already.
        looks (`Collection[Look]`):
            What is wanted.

    Raises `ValueError` for a model whose logits are not those of its LM head alone.
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
    whole = [torch.cat(of_look).view(sampled.shape) for of_look in zip(*parts, strict=True)]
    return dict(zip(looks, whole, strict=True))


@torch.no_grad()
def prompt_entropies(model: nn.Module, states: Tensor, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    r"""
    Entropy in nats at the tokens of the prompt, `(B, P - 1)`; NaN at its first token, which nothing predicts, and at
    padding.

    Args:
        states (`torch.Tensor`):
            `(B, P + T, D)`: last hidden states of prompt and completion.
        ids, mask (`torch.Tensor`):
            `(B, P)`: the prompts; 1 where they have a token, 0 at padding.

    The other arguments and the errors are those of [`take_looks`].
    """
    mask = mask.bool()
    before, look = states[:, : mask.shape[1] - 1], Entropy()
    entropies = take_looks(model, before, ids[:, 1:], temperature, None, [look])[look]
    return torch.where(mask[:, 1:] & mask[:, :-1], entropies, torch.nan)


@contextmanager
def _whole_head(model: nn.Module, device: torch.device):
    """Weight and bias of the LM head on this device; every rank has to ask if each has a shard of them."""
    head = model.get_output_embeddings()
    parameters = head.weight, getattr(head, "bias", None)
    with maybe_gather_lm_head_ctx(*parameters):  # DeepSpeed ZeRO-3
        whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]  # FSDP2
        yield [None if parameter is None else parameter.to(device) for parameter in whole]
