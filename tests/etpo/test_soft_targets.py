"""The theory by enumeration, targets by hand, gradients in closed form, and chunks against the whole."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from trl_entropy.etpo import vocabulary
from trl_entropy.etpo.targets import critic_loss, policy_loss, soft_state, soft_targets
from trl_entropy.etpo.vocabulary import Head, StatesAndHead, policy_losses, soft_states


WORDS, LENGTH, BETA, GAMMA, DELTA = 3, 3, 0.1, 0.99, 10.0
ACTIONS = list(itertools.product(range(WORDS), repeat=LENGTH))
PREFIXES = [prefix for length in range(LENGTH) for prefix in itertools.product(range(WORDS), repeat=length)]
STATES = {state: row for row, state in enumerate(itertools.product((0, 1), PREFIXES))}


@pytest.fixture(scope="module")
def mdp():
    """Two states; an error in the first leads to the second, which ends. Three words, three to an action."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(len(STATES), WORDS, generator=generator, dtype=torch.float64).log_softmax(-1)
    drawn = torch.rand(2, len(ACTIONS), generator=generator)
    rewards = {
        (state, action): -1.0 if drawn[state, row] < 0.6 else 0.5 if drawn[state, row] < 0.8 else 0.9
        for state in (0, 1)
        for row, action in enumerate(ACTIONS)
    }
    return SimpleNamespace(reference=reference, rewards=rewards)


def goes_on(mdp, state: int, action: tuple) -> bool:
    return state == 0 and mdp.rewards[state, action] < 0


def logp_of(table: torch.Tensor, state: int, action: tuple) -> torch.Tensor:
    return sum(table[STATES[state, action[:place]], word] for place, word in enumerate(action))


def optimum(mdp) -> dict:
    """The soft-optimal policy over whole actions: pi ~ rho exp(Q / beta), from the second state back to the first."""
    found, value = {}, {}
    for state in (1, 0):
        q = {
            action: mdp.rewards[state, action] + (GAMMA * value[1] if goes_on(mdp, state, action) else 0.0)
            for action in ACTIONS
        }
        scores = torch.stack([logp_of(mdp.reference, state, action) + q[action] / BETA for action in ACTIONS])
        value[state] = BETA * scores.logsumexp(0)
        found |= {(state, action): p for action, p in zip(ACTIONS, scores.softmax(0), strict=True)}
    return found


def episodes(mdp) -> list[tuple]:
    """Every episode as (state, prefix, word, reward) of each token; `None` is the word of the environment."""

    def tokens(state, action):
        last = LENGTH - 1
        return [
            (state, action[:place], word, mdp.rewards[state, action] if place == last else 0.0)
            for place, word in enumerate(action)
        ]

    found = []
    for first in ACTIONS:
        if goes_on(mdp, 0, first):
            found += [[*tokens(0, first), None, *tokens(1, second)] for second in ACTIONS]
        else:
            found.append(tokens(0, first) + [None] * (LENGTH + 1))
    return found


def trained(mdp, loss=policy_loss, of_critic=critic_loss, slip=False) -> float:
    """
    How far the policy is from the optimum, after alternating targets, steps of the critic and of the policy.

    Args:
        loss, of_critic: the two losses.
        slip: whether KL inside an action is that of the state after this one.
    """
    rows = episodes(mdp)
    at = torch.tensor([[STATES[token[:2]] if token else 0 for token in row] for row in rows])
    words = torch.tensor([[token[2] if token else 0 for token in row] for row in rows])
    rewards = torch.tensor([[token[3] if token else 0.0 for token in row] for row in rows], dtype=torch.float64)
    mask = torch.tensor([[token is not None for token in row] for row in rows])
    later = torch.tensor([[STATES[1, token[1]] if token and token[1] else 0 for token in row] for row in rows])
    logits = mdp.reference.clone().requires_grad_()
    q = torch.full((len(STATES), WORDS), 20.0, dtype=torch.float64, requires_grad=True)  # as logits of a model
    for _ in range(40):
        with torch.no_grad():
            values, divergences = soft_state(logits.log_softmax(-1), mdp.reference, q)
            of_token = divergences[at]
            if slip:
                of_token = torch.where(later > 0, divergences[later], of_token)
            targets = soft_targets(values[at], of_token, rewards, mask, BETA, GAMMA)
        wanted = q.detach().clone()
        wanted[at[mask], words[mask]] = targets[mask]
        for _ in range(3):  # plain gradient: linear steps of 10 from afar, then all the way
            (gradient,) = torch.autograd.grad(of_critic(q, wanted, DELTA).sum(), q)
            with torch.no_grad():
                q -= gradient
        for _ in range(2):  # the natural gradient: of a quadratic in the logits, so one step goes all the way
            logps = logits.log_softmax(-1)
            (gradient,) = torch.autograd.grad(loss(logps, mdp.reference, q, BETA).sum(), logits)
            with torch.no_grad():
                logits -= gradient / logps.exp() / BETA
    best, table = optimum(mdp), logits.detach().log_softmax(-1)
    return max(abs(logp_of(table, *key).exp() - p) for key, p in best.items()).item()


def released_loss(logps, ref_logps, q, beta):
    return (beta * logps - q.detach()).mean(-1)


def loss_without_reference(logps, ref_logps, q, beta):
    return policy_loss(logps, torch.zeros_like(ref_logps), q, beta)


def released_huber(chosen, targets, delta):
    error = targets - chosen
    return torch.where(error.abs() <= delta, error**2 / 2, torch.where(error > delta, delta * (error - delta / 2), 0))


def test_tokens_reach_the_optimum_over_actions(mdp):
    assert trained(mdp) < 1e-10


@pytest.mark.parametrize(
    "fault",
    [{"loss": released_loss}, {"loss": loss_without_reference}, {"slip": True}, {"of_critic": released_huber}],
    ids=["policy_loss", "no_reference", "index", "huber"],
)
def test_each_fault_of_the_released_code_misses_it(mdp, fault):
    error = trained(mdp, **fault)
    assert not error < 1e-3


def test_targets_by_hand_with_an_observation_between_two_actions():
    values, divergences = torch.tensor([[1.0, 2, 9, 3, 9]]), torch.tensor([[0.1, 0.2, 9, 0.3, 9]])
    rewards, mask = torch.tensor([[0, -1, 0, 0.9, 0]]), torch.tensor([[1, 1, 0, 1, 0]])
    targets = soft_targets(values, divergences, rewards, mask, beta=0.5, gamma=0.99)
    torch.testing.assert_close(targets, torch.tensor([[2 - 0.5 * 0.2, -1 + 0.99 * (3 - 0.5 * 0.3), 0, 0.9, 0]]))


def test_what_the_environment_wrote_has_no_part_in_targets():
    values, divergences, rewards = torch.ones(3, 1, 4).unbind()
    wild = torch.where(mask := torch.tensor([[1, 0, 0, 1]]).bool(), values, torch.nan)
    expected = soft_targets(values, divergences, rewards, mask, beta=0.5, gamma=0.9)
    assert torch.equal(soft_targets(wild, wild, rewards, mask, beta=0.5, gamma=0.9), expected)
    nothing = torch.zeros(1, 4).bool()
    assert torch.equal(soft_targets(wild, wild, rewards, nothing, beta=0.5, gamma=0.9), torch.zeros(1, 4))


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_gradient_of_the_policy_loss_in_closed_form(random):
    logits, ref_logps, q = random(5, 7).requires_grad_(), random(5, 7).log_softmax(-1), random(5, 7)

    def gradient(q):
        return torch.autograd.grad(policy_loss(logits.log_softmax(-1), ref_logps, q, beta=0.3).sum(), logits)[0]

    pi = logits.detach().softmax(-1)
    slope = 0.3 * (pi.log() - ref_logps) - q
    expected = pi * (slope - (pi * slope).sum(-1, keepdim=True))
    torch.testing.assert_close(gradient(q), expected, rtol=0, atol=1e-15)
    assert (gradient(2 * q) - gradient(q)).abs().max() > 0.01  # that of the released loss is the same for any Q
    at_best = (ref_logps + q / 0.3).requires_grad_()
    loss = policy_loss(at_best.log_softmax(-1), ref_logps, q, beta=0.3).sum()
    assert torch.autograd.grad(loss, at_best)[0].abs().max() < 1e-12


@pytest.mark.parametrize(("error", "expected"), [(-30.0, 250.0), (-11.0, 60.0), (-4.0, 8.0), (4.0, 8.0), (11.0, 60.0)])
def test_critic_loss_by_hand(error, expected):
    assert critic_loss(torch.tensor(20.0), torch.tensor(20.0 + error), delta=10.0).item() == expected


@pytest.fixture
def nets(random):
    """A policy, a reference and a critic with states of different widths, 11 tokens, 50 words."""
    heads = (Head(random(50, 4), random(50), 0.7), Head(random(50, 3), None, 0.7), Head(random(50, 2), random(50)))
    return [StatesAndHead(random(11, head.weight.shape[1]), head) for head in heads]


def dense(policy: StatesAndHead, reference: StatesAndHead, critic: StatesAndHead) -> tuple:
    parts = [(net.states @ net.head.weight.T, net.head.bias) for net in (policy, reference, critic)]
    logits = [product if bias is None else product + bias for product, bias in parts]
    return (logits[0] / 0.7).log_softmax(-1), (logits[1] / 0.7).log_softmax(-1), logits[2]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_are_the_whole(nets, chunk, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    policy = nets[0]
    leaves = [policy.states.requires_grad_(), policy.head.weight.requires_grad_(), policy.head.bias.requires_grad_()]
    for found, expected in zip(soft_states(*nets), soft_state(*dense(*nets)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found, expected = policy_losses(*nets, beta=0.3), policy_loss(*dense(*nets), beta=0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.arange(11.0).double()
    gradients = (torch.autograd.grad(loss @ weights, leaves) for loss in (found, expected))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    ids = torch.arange(11) * 4
    torch.testing.assert_close(nets[2].head.chosen(nets[2].states, ids), dense(*nets)[2][range(11), ids])


def test_nothing_of_the_size_of_tokens_times_vocabulary_is_kept(nets, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK", 4)
    nets[0].states.requires_grad_()

    def kept(loss) -> list[int]:
        sizes = []
        with saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor):
            loss()
        return sizes

    assert max(kept(lambda: policy_losses(*nets, beta=0.3))) <= 4 * 50
    assert max(kept(lambda: policy_loss(*dense(*nets), beta=0.3))) == 11 * 50
