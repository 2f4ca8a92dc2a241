"""A fact about the whole vocabulary at every token, without a (B, T, V) tensor."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from trl.trainer.utils import maybe_gather_lm_head_ctx


CHUNK = 1024  # tokens whose logits are held at once


class HiddenStates:
    """The last hidden states of a model's next forward passes, kept by a hook on its backbone."""

    def __init__(self, model: nn.Module, detached: bool = True):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.states: Tensor | None = None
        self._detached = detached
        self._hook = self.model.base_model.register_forward_hook(self._keep)

    def _keep(self, module, args, outputs) -> None:
        self.states = outputs.last_hidden_state.detach() if self._detached else outputs.last_hidden_state

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


@torch.no_grad()
def expected_discriminator(model: nn.Module, states: Tensor, length: int, temperature: float) -> Tensor:
    r"""
    \\( \mathbb{E}_{v \sim \pi}[\pi_v (H + \log \pi_v)] = H \sum_v \pi_v^2 + \sum_v \pi_v^2 \log \pi_v \\), `(B, T)`.

    Args:
        model (`nn.Module`):
            Causal language model of transformers; its LM head is applied here, [`CHUNK`] tokens at a time.
        states (`torch.Tensor`):
            `(B, P + T, D)`: last hidden states of prompt and completion.
        length (`int`):
            `T`, the tokens of the completion.
        temperature (`float`):
            What the logits are divided by.

    Raises `ValueError` for a model whose logits are not those of its LM head alone.
    """

    def of_token(logps: Tensor) -> Tensor:
        squares = torch.exp(2 * logps)
        return _entropy(logps) * squares.sum(-1) + (squares * logps).sum(-1)

    return _per_token(model, states[:, -length - 1 : -1], temperature, of_token)


@torch.no_grad()
def entropy_at(model: nn.Module, states: Tensor, length: int, temperature: float) -> Tensor:
    r"""
    Entropy \\( -\sum_v \pi_v \log \pi_v \\) in nats at a temperature of choice, `(B, T)`.

    Arguments and errors are those of [`expected_discriminator`].
    """
    return _per_token(model, states[:, -length - 1 : -1], temperature, _entropy)


@torch.no_grad()
def prompt_entropies(model: nn.Module, states: Tensor, prompt_mask: Tensor, temperature: float) -> Tensor:
    r"""
    Entropy in nats at the tokens of the prompt, `(B, P - 1)`; NaN at its first token, which nothing predicts, and at
    padding.

    Args:
        prompt_mask (`torch.Tensor`):
            `(B, P)`: 1 where the prompt has a token, 0 at padding.

    The other arguments and the errors are those of [`expected_discriminator`].
    """
    mask = prompt_mask.bool()
    entropies = _per_token(model, states[:, : mask.shape[1] - 1], temperature, _entropy)
    return torch.where(mask[:, 1:] & mask[:, :-1], entropies, torch.nan)


def _entropy(logps: Tensor) -> Tensor:
    return -(logps.exp() * logps).sum(-1)


def _per_token(model: nn.Module, before: Tensor, temperature: float, of_token: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the log-probabilities `(N, V)` of the vocabulary, at the token after each of these states."""
    check_plain_head(model.config, "clip_v, the entropy at temperature 1 or entropy_measures='full'")
    with _whole_head(model, before.device) as (weight, bias):
        parts = []
        for chunk in before.reshape(-1, before.shape[-1]).split(CHUNK):
            logits = nn.functional.linear(chunk.to(weight.dtype), weight, bias).float()
            parts.append(of_token((logits / temperature).log_softmax(-1)))
    return torch.cat(parts).view(before.shape[:2])


@contextmanager
def _whole_head(model: nn.Module, device: torch.device):
    """Weight and bias of the LM head on this device; every rank has to ask if each has a shard of them."""
    head = model.get_output_embeddings()
    parameters = head.weight, getattr(head, "bias", None)
    with maybe_gather_lm_head_ctx(*parameters):  # DeepSpeed ZeRO-3
        whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]  # FSDP2
        yield [None if parameter is None else parameter.to(device) for parameter in whole]
