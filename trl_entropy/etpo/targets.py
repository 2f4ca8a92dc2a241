"""ETPO's targets and losses, from given logits and values."""

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


def soft_targets(
    values: Tensor, divergences: Tensor, rewards: Tensor, mask: Tensor, beta: float, gamma: float
) -> Tensor:
    r"""
    The critic's target at every token that the policy wrote, `(B, T)`; 0 at other tokens.

    $$
    y_j = V_{j+1} - \beta \, \mathrm{KL}_{j+1} \quad \text{inside an action}, \qquad
    y_j = r + \gamma \, (V' - \beta \, \mathrm{KL}') \quad \text{at its last token}
    $$

    with \\( V' \\) and \\( \mathrm{KL}' \\) at the state before the first token of the next action. Both are 0 after
    the last action, which ends the episode. An action is a run of consecutive policy tokens, so the environment must
    write at least one token between two actions.

    Args:
        values, divergences (`torch.Tensor`):
            `(B, T)`: \\( V = \sum_v \pi_v \bar Q_v \\) and \\( \mathrm{KL}(\pi \| \rho) \\) at the state before each
            token.
        rewards (`torch.Tensor`):
            `(B, T)`: the environment's rewards, at the last token of each action.
        mask (`torch.Tensor`):
            `(B, T)`: 1 at the policy's tokens; 0 at the environment's tokens and at padding.
        beta (`float`):
            \\( \beta \\), reward per nat.
        gamma (`float`):
            \\( \gamma \\), the discount from one action to the next.

    Reference: [Entropy-Regularized Token-Level Policy Optimization](https://huggingface.co/papers/2402.06700), 2024.
    """
    mask, length = mask.bool(), mask.shape[1]
    places = torch.arange(length, device=mask.device).expand_as(mask)
    at_or_after = torch.where(mask, places, length).flip(1).cummin(1).values.flip(1)
    following = torch.cat([at_or_after[:, 1:], torch.full_like(at_or_after[:, :1], length)], dim=1)
    soft = (values - beta * divergences).gather(1, following.clamp(max=length - 1))
    discounts = torch.where(following == places + 1, 1.0, gamma)
    targets = rewards + torch.where(following < length, discounts * soft, 0.0)
    return torch.where(mask, targets, 0.0)


def soft_state(logps: Tensor, ref_logps: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    r"""
    \\( V = \sum_v \pi_v Q_v \\) and \\( \mathrm{KL}(\pi \| \rho) \\) in nats, `(...)`.

    Args:
        logps, ref_logps, q (`torch.Tensor`):
            `(..., V)`: \\( \log \pi \\), \\( \log \rho \\) of the frozen initial policy, and \\( Q \\).
    """
    probabilities = logps.exp()
    return (probabilities * q).sum(-1), (probabilities * (logps - ref_logps)).sum(-1)


def policy_loss(logps: Tensor, ref_logps: Tensor, q: Tensor, beta: float) -> Tensor:
    r"""
    \\( \sum_v \pi_v \, (\beta (\log \pi_v - \log \rho_v) - Q_v) \\), `(...)`: least where
    \\( \pi \propto \rho \exp(Q / \beta) \\).

    The arguments are those of [`soft_state`]; only `logps` has a gradient.
    """
    return (logps.exp() * (beta * (logps - ref_logps.detach()) - q.detach())).sum(-1)


def critic_loss(chosen: Tensor, targets: Tensor, delta: float) -> Tensor:
    """The Huber loss of `Q` at the written tokens: `e**2 / 2`, and linear above `|e| = delta`; `(...)`."""
    return huber_loss(chosen, targets, reduction="none", delta=delta)
