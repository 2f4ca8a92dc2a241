"""Floor 3: a fact about the whole vocabulary at every token, without a (B, T, V) tensor."""

import torch
from torch import Tensor, nn


CHUNK = 1024  # tokens whose logits are held at once


class HiddenStates:
    """The last hidden states of a model's next forward passes, kept by a hook on its backbone."""

    def __init__(self, model: nn.Module):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.states: Tensor | None = None
        self._hook = self.model.base_model.register_forward_hook(self._keep)

    def _keep(self, module, args, outputs) -> None:
        self.states = outputs.last_hidden_state.detach()

    def remove(self) -> None:
        self._hook.remove()


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
    config = model.config.get_text_config()
    scaled = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    given = [name for name in scaled if getattr(config, name, None) not in (None, 1.0)]
    if given:
        raise ValueError(f"clip_v does not know logits that are changed after the LM head: {', '.join(given)} is set")
    head = model.get_output_embeddings()
    weight = head.weight.full_tensor() if hasattr(head.weight, "full_tensor") else head.weight
    before = states[:, -length - 1 : -1]  # the state before a token predicts it
    parts = []
    for chunk in before.reshape(-1, before.shape[-1]).split(CHUNK):
        logps = (nn.functional.linear(chunk.to(weight.dtype), weight, head.bias).float() / temperature).log_softmax(-1)
        squares = torch.exp(2 * logps)
        entropy = -(logps.exp() * logps).sum(-1)
        parts.append(entropy * squares.sum(-1) + (squares * logps).sum(-1))
    return torch.cat(parts).view(before.shape[:2])
