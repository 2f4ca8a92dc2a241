"""
GRPO on a table of logits: a few contexts, ten or so actions, one token per completion.

Only policy, sampling and update are simulated. Knobs, controllers, callback, rules, tokens and the clip are the
package's, joined as the trainer joins them. Everything is float64, and the entropy is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from trl_entropy.callbacks.controllers import EntropyController
from trl_entropy.control.controller import build_controllers
from trl_entropy.control.knobs import TRL_KNOBS, Knobs, rule_knobs
from trl_entropy.rules.compose import active, build, combined, evaluate
from trl_entropy.rules.pool import Pool
from trl_entropy.rules.tokens import Tokens
from trl_entropy.rules.weights import WEIGHTS


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def entropies(logps: np.ndarray) -> np.ndarray:
    """Nats, one per context, from `(C, V)` log-probabilities."""
    return -(np.exp(logps) * logps).sum(-1)


def peaked(entropy: float, contexts: int = 8, actions: int = 10) -> np.ndarray:
    """Logits of a policy of this entropy (nats): in each context one action stands out, the others are alike."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        above = entropies(log_softmax(np.array([middle] + [0.0] * (actions - 1)))) > entropy
        low, high = (middle, high) if above else (low, middle)
    logits = np.zeros((contexts, actions))
    logits[np.arange(contexts), np.arange(contexts) % actions] = low
    return logits


@dataclass
class World:
    """Everything that a checkpoint holds besides the controllers: the policy, the randomness and the rollout."""

    logits: np.ndarray
    rng: np.random.Generator
    step: int = 0
    actions: np.ndarray | None = None
    advantages: np.ndarray | None = None
    old_logps: np.ndarray | None = None


class Simulator:
    """
    A run of GRPO on a table of logits.

    Args:
        logits (`np.ndarray`):
            `(C, V)`: where the policy of C contexts and V actions starts.
        success (`np.ndarray` or `float`):
            `(C, V)`: the probability that an action is rewarded with 1; else the reward is 0.
        learning_rate (`float`):
            Of SGD. The loss is the mean over all completions.
        steps (`int`):
            Updates of the whole run.
        seed (`int`):
            Of the sampling.
        group (`int`, *optional*, defaults to `16`):
            Completions per context and update: those whose rewards are compared.
        updates (`int`, *optional*, defaults to `1`):
            Updates N per rollout. A rollout is N groups of every context, and each update trains on its own groups.
        controllers (`Mapping`, *optional*):
            As in the config.
        knobs (`float`):
            What the config sets: `epsilon_low=0.1`. The parameter of a rule stands under `rules`.
        rules (`Mapping`, *optional*):
            As `token_weights` in the config.
    """

    def __init__(
        self, logits, success, learning_rate, steps, seed, group=16, updates=1, controllers=None, rules=None, **knobs
    ):
        self.world = World(logits.copy(), np.random.default_rng(seed))
        self.success = np.broadcast_to(np.asarray(success, dtype=float), logits.shape)
        self.learning_rate, self.steps, self.group, self.updates = learning_rate, steps, group, updates
        self.token_weights = build("token_weights", WEIGHTS, {"sign": {}, **(rules or {})})
        self.knobs = self._build_knobs(knobs)
        known = {knob.name: knob for knob in TRL_KNOBS} | rule_knobs({"token_weights": self.token_weights})
        self.controllers = build_controllers(controllers or {}, known, self.knobs)
        self.callbacks = [
            EntropyController(
                self.controllers, self.knobs, lambda _: self.entropy, self._log, self._rollout_ends, lambda: self.knobs
            )
        ]
        self.entropy: float | None = None
        self.logged: dict[str, float] = {}
        # One entry per update: entropy before it (nats), share of clipped tokens, knobs in force
        self.entropies: list[float] = []
        self.clipped: list[float] = []
        self.turned: list[dict[str, float]] = []

    def _build_knobs(self, values: Mapping[str, float]) -> Knobs:
        knobs, own = Knobs(), {knob.name: knob.default for knob in TRL_KNOBS}
        for knob in TRL_KNOBS:
            name = knob.name
            knobs.add(knob, lambda name=name: own[name], lambda value, name=name: own.update({name: value}))
        sections = {"token_weights": self.token_weights}
        knobs.add_rules(rule_knobs(sections).values(), sections)
        for name, value in values.items():
            knobs[name] = value
        return knobs

    def _rollout_ends(self) -> bool:
        return self.world.step % self.updates == 0

    def _log(self, values: Mapping[str, float]) -> None:
        self.logged.update(values)

    def run(self, steps: int | None = None) -> "Simulator":
        """Train for so many updates, by default to the end."""
        for callback in self.callbacks:
            callback.on_train_begin(None, self._state(), None)
        for _ in range(self.steps - self.world.step if steps is None else steps):
            self._update()
            for callback in self.callbacks:
                callback.on_step_end(None, self._state(), None)
        return self

    def _state(self) -> SimpleNamespace:
        done = self.world.step
        return SimpleNamespace(global_step=done, max_steps=self.steps, epoch=2 * done / self.steps, num_train_epochs=2)

    def _roll_out(self) -> None:
        world, rows = self.world, np.arange(len(self.world.logits))[:, None]
        logps = log_softmax(world.logits)
        bounds = np.exp(logps).cumsum(-1)
        draws = world.rng.random((self.updates, len(logps), self.group, 1)) * bounds[:, None, -1:]
        world.actions = (draws >= bounds[:, None, :]).sum(-1)
        world.old_logps = logps[rows, world.actions]
        rewards = (world.rng.random(world.actions.shape) < self.success[rows, world.actions]).astype(float)
        centred = rewards - rewards.mean(-1, keepdims=True)
        world.advantages = centred / (rewards.std(-1, ddof=1, keepdims=True) + 1e-4)

    def tokens(self) -> Tokens:
        """The facts about the completions of this update, one token each, under the policy as it stands."""
        world, rows = self.world, np.arange(len(self.world.logits))[:, None]
        part = world.step % self.updates
        actions, logps = world.actions[part], log_softmax(world.logits)
        facts = (
            logps[rows, actions],
            world.old_logps[part],
            np.repeat(entropies(logps), self.group),
            world.advantages[part],
        )
        return Tokens(
            *(torch.tensor(fact.reshape(-1, 1)) for fact in facts),
            mask=torch.ones(actions.size, 1, dtype=torch.bool),
            step=world.step,
            clip_range=(self.knobs["epsilon_low"], self.knobs["epsilon_high"]),
            pool=Pool([]),
        )

    def gradient(self, tokens: Tokens) -> np.ndarray:
        r"""
        `(C, V)`: the gradient of \\( \mathrm{mean}(\min(r A', \mathrm{clip}(r) A')) + c \, \mathrm{mean}(H) \\), which
        TRL ascends; the second mean is over contexts.
        """
        weights = evaluate("token_weights", active(self.token_weights), tokens)
        advantages = combined(tokens, weights, {})
        actions = self.world.actions[self.world.step % self.updates]
        pushes = torch.where(tokens.clipped, 0.0, advantages * tokens.ratios).numpy().reshape(actions.shape)
        logps = log_softmax(self.world.logits)
        policy = np.exp(logps)
        gradient = -policy * pushes.sum(-1, keepdims=True)
        np.add.at(gradient, (np.arange(len(policy))[:, None], actions), pushes)
        bonus = -policy * (logps + entropies(logps)[:, None])
        return gradient / pushes.size + self.knobs["entropy_coef"] * bonus / len(policy)

    def _update(self) -> None:
        world = self.world
        if world.step % self.updates == 0:
            self._roll_out()
        tokens = self.tokens()
        self.entropy = float(tokens.entropies.mean())
        self.entropies.append(self.entropy)
        self.clipped.append(float(tokens.clipped.double().mean()))
        self.turned.append(dict(self.knobs))
        world.logits = world.logits + self.learning_rate * self.gradient(tokens)
        world.step += 1
