"""Floor 4: TRL's GRPO trainer with entropy control."""

import logging

import torch
from torch import Tensor
from trl import GRPOTrainer

from ._seam import LossSeam
from .callbacks import EntropyController, trl_knobs
from .compose import active, effective_advantages, evaluate, faults, needs, term_sum
from .config import EntropyGRPOConfig, check_rollout_fits
from .knobs import Knobs
from .measures import IdleRules, Means, entropy_by_sign, rule_means
from .tokens import Tokens
from .watchdog import EntropyWatchdog


logger = logging.getLogger(__name__)


class EntropyGRPOTrainer(LossSeam, GRPOTrainer):
    r"""
    TRL's [`~trl.GRPOTrainer`] with entropy control; the arguments are TRL's, `args` an [`EntropyGRPOConfig`].

    $$
    A' = \Big(\prod_i w_i\Big) \hat A + \sum_j b_j, \qquad
    \mathcal{L}' = \mathcal{L}_{\text{TRL}}(A') + \sum_k \mathrm{mean}(t_k)
    $$

    The weights \\( w_i \\) are `token_weights`, the bonuses \\( b_j \\) `advantage_bonuses`, the terms \\( t_k \\)
    `loss_terms`. With none of them set the loss and its gradient are TRL's, bit for bit.

    Attributes:
        knobs ([`~knobs.Knobs`]): every scalar that a controller may turn, by name; set one and it acts at the next
            loss.

    Raises `TypeError` if `args` is TRL's config, and [`SeamError`] if TRL's loss can no longer be reached.
    """

    def __init__(self, model, reward_funcs=None, args: EntropyGRPOConfig | None = None, train_dataset=None, **kwargs):
        args = EntropyGRPOConfig() if args is None else args
        if not isinstance(args, EntropyGRPOConfig):
            raise TypeError(f"args must be an EntropyGRPOConfig, which takes the same arguments; got {type(args)}")
        check_rollout_fits(args, train_dataset)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, train_dataset=train_dataset, **kwargs)
        self.token_weights, self.advantage_bonuses, self.loss_terms = args.build_rules().values()
        self.knobs = self._build_knobs()
        self._means = Means()
        self._idle = IdleRules()
        self._entropy: float | None = None
        self.controllers = args.build_controllers()
        for controller in self.controllers:
            self.add_callback(EntropyController(controller, self.knobs, self.step_entropy, self.log_means))

    def _build_knobs(self) -> Knobs:
        knobs = trl_knobs(self)
        knobs.add_rules("token_weights", self.token_weights)
        knobs.add_rules("advantage_bonuses", self.advantage_bonuses)
        knobs.add_rules("loss_terms", self.loss_terms)
        return knobs

    def train(self, *args, **kwargs):
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EntropyWatchdog):
                callback.attach(self)
        return super().train(*args, **kwargs)

    def needs(self) -> set[str]:
        """What the active rules read besides the facts that are always there."""
        return needs(active(self.token_weights), active(self.advantage_bonuses), active(self.loss_terms))

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """`A'`, `(B, T)`; `raw` itself if no weight and no bonus is active."""
        weights, bonuses = active(self.token_weights), active(self.advantage_bonuses)
        if not weights and not bonuses:
            return raw
        weights = evaluate("token_weights", weights, tokens)
        bonuses = evaluate("advantage_bonuses", bonuses, tokens)
        if self.model.training:
            one = torch.ones((), device=raw.device)
            self._means.add({"faults": (faults(tokens, weights, bonuses), one)})
            self._means.add(rule_means("token_weights", weights, tokens, neutral=1.0))
            self._means.add(rule_means("advantage_bonuses", bonuses, tokens, neutral=0.0))
        return effective_advantages(tokens, weights, bonuses)

    def extra_loss(self, tokens: Tokens) -> Tensor | None:
        """The sum of the loss terms over the trained tokens; `None` if no term is active."""
        rules = active(self.loss_terms)
        if not rules:
            return None
        terms = evaluate("loss_terms", rules, tokens)
        if self.model.training:
            self._means.add(rule_means("loss_terms", terms, tokens, neutral=0.0))
        return term_sum(tokens, terms)

    def observe(self, tokens: Tokens) -> None:
        """Measure a training micro-batch."""
        self._means.add(entropy_by_sign(tokens))

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self._end_optimizer_step()
        return loss

    def _end_optimizer_step(self) -> None:
        means = self._means.reduce(lambda values: self.accelerator.reduce(values, reduction="sum"))
        if means.pop("faults", 0.0):
            raise ValueError(
                f"a weight was negative, or a weight or bonus not finite, at step {self.state.global_step}: one of "
                f"{', '.join([*self.token_weights, *self.advantage_bonuses])} must return finite values, weights >= 0"
            )
        self._idle.look(means)
        self._entropy = means.pop("entropy/all", None)
        self.log_means(means)
        # The values that were in force in this step; the controllers decide those of the next after it
        self.log_means({f"knobs/{name}": value for name, value in self.knobs.items()})

    def step_entropy(self) -> float | None:
        """Entropy (nats) over all tokens of the last optimizer step, on all ranks; `None` if there were none."""
        return self._entropy

    def control_state(self) -> dict:
        """The state of every controller, by name."""
        return {"controllers": {controller.name: controller.state_dict() for controller in self.controllers}}

    def load_control_state(self, state: dict, source: str) -> None:
        """Continue every controller. Raises `ValueError` if one has no state in `source`."""
        saved = state["controllers"]
        for controller in self.controllers:
            if controller.name not in saved:
                raise ValueError(
                    f"{source} has no state of controller {controller.name!r} (it has: {', '.join(saved) or 'none'}): "
                    "resume with the controllers that the checkpoint was written with"
                )
            controller.load_state_dict(saved[controller.name])
        for name in saved.keys() - {controller.name for controller in self.controllers}:
            logger.warning("controller %r was on when %s was written, and is off now", name, source)
