"""Entropy control for a TRL trainer."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ._seam import (
    Hooks,
    Seam,
    clipped_bounds,
    gradient_sample,
    last_checkpoint,
    log_means,
    logged_signal,
    rollout_ends,
    set_logged_entropy,
)
from .build import rollout_plan, token_slopes
from .callbacks.controllers import EntropyController, LearningRateScale, all_knobs, announce
from .callbacks.own import attach_all, stop_all, with_own
from .config import with_flags
from .control.controller import load_states, states
from .control.signals import ENTROPY, is_measured, needs_clipping
from .control.signals import needs as needs_of_signals
from .families import Family, by_name, family_of
from .measures import Log, StepMeasures
from .objective import Objective
from .refusals import check_rollout_fits
from .rewards import answers_of
from .rules import Tokens


class EntropyControl(Hooks):
    r"""
    Entropy control, as a mixin before a TRL trainer: [`with_entropy_control`] returns the class.

    $$
    A' = \Big(\prod_i w_i\Big) \hat A + \sum_j b_j, \qquad
    \mathcal{L}' = \mathcal{L}_{\text{TRL}}(A') + \sum_k \mathrm{mean}_k(t_k)
    $$

    The weights \\( w_i \\) are `token_weights`, the bonuses \\( b_j \\) `advantage_bonuses`, the terms \\( t_k \\)
    `loss_terms`. Each term is averaged either as `loss_type` averages, or over all trained tokens. Without any of them
    the loss and its gradient are TRL's, bit for bit.

    Attributes:
        knobs ([`~knobs.Knobs`]): every scalar that a controller may turn, by name; a value set here acts from the next
        loss.

    Raises `TypeError` if `args` is TRL's config, and [`SeamError`] if TRL's loss can no longer be reached.
    """

    def __init_subclass__(cls, family: Family | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.family = family or family_of(cls)

    def __init__(self, *positional: Any, **named: Any) -> None:
        family_of(type(self))  # raises if a library has replaced TRL's class
        named = dict(**by_name(type(self), Hooks, positional), **named)
        config, args = self.family.config_class(), named.get("args")
        args = named["args"] = with_flags(config)() if args is None else args
        if getattr(args, "family", None) is not self.family:
            raise TypeError(
                f"args must be an {with_flags(config).__name__}, which takes the same arguments; got {type(args)}. "
                f"with_entropy_control({config.__name__}) returns that class"
            )
        check_rollout_fits(args, named.get("train_dataset"), named)
        named["callbacks"] = with_own(named.get("callbacks"), args.live_view)
        self.seam = Seam(self)
        super().__init__(**{name: value for name, value in named.items() if value is not None})
        control = args.control
        self.controllers = control.fresh_controllers()
        turned = [controller.knob for controller in self.controllers]
        signals = {controller.signal for controller in self.controllers if controller.law.uses_target}
        self.rules = Objective(control.sections, turned, signals)
        self.seam.use(rollout_plan(args, self.train_dataset, self.reward_func_names), control.trimming)
        self.metrics = Log(args.entropy_measures, [knob.name for knob in turned], partial(log_means, self))
        self._new_measures = partial(StepMeasures, args.entropy_measures, signals, token_slopes(args))
        self.measures = self._new_measures()
        self.measured_needs = (self.measures.needs | needs_of_signals(signals)) - self.family.lacks.keys()
        self.add_callback(scale := LearningRateScale())
        self.knobs = all_knobs(self, scale)
        of_steps = {"read": self.signal, "log": self.metrics.add}
        of_rollouts = {"rollout_ends": partial(rollout_ends, self), "clipped": partial(clipped_bounds, self)}
        self.add_callback(EntropyController(self.controllers, self.knobs, **of_steps, **of_rollouts))
        attach_all(self)

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As in TRL, but `True` resumes from the last checkpoint that was written completely."""
        if self.accelerator.is_main_process:
            announce(self.args, self.controllers)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir) or True
        attach_all(self)
        # Forget the plan, the pool and the measures of an earlier call: a resumed run takes them from the checkpoint
        self.metrics.take()
        self.seam.begin_run(rollout_plan(self.args, self.train_dataset, self.reward_func_names))
        self.measures = self._new_measures()
        try:
            with self.seam.patched():
                return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            stop_all(self)

    # The seam calls these, in this order

    def needs(self) -> frozenset[str]:
        """The facts that the rules read besides those that are always there."""
        return self.rules.needs()

    def observe_rollout(self, rewards: Tensor, completions: list, contexts: Callable[[], Tensor]) -> None:
        """
        Log a training rollout of all ranks: rewards `(groups, G)`, completions group by group, and, where a measure
        needs them, hashes `(B, T)` of every trained token's context, 0 elsewhere.
        """
        answers = partial(answers_of, completions, self.reward_funcs)
        self.metrics.add(self.measures.of_rollout(rewards, answers, contexts))

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """`A'`, `(B, T)`; `raw` itself if no weight and no bonus is active."""
        return self.rules.effective_advantages(raw, tokens, self.measures if self.model.training else None)

    def observe(self, tokens: Tokens, effective: Tensor) -> None:
        """Measure a training micro-batch: its raw tokens, and their advantages in the loss, `(B, T)`."""
        self.measures.add_tokens(tokens, effective)

    def extra_loss(self, tokens: Tokens) -> dict[bool, Tensor]:
        """The sum of the loss terms, `(B, T)`, by whether they follow `loss_type`."""
        return self.rules.extra_loss(tokens, self.measures if self.model.training else None)

    def end_step(self) -> None:
        """Log the measures of the optimizer step. Raises `ValueError` if a weight or bonus was out of range."""
        self.measures.add_gradient(gradient_sample(self))
        means = self.measures.end_step(self.seam.facts.sum_over_ranks)
        if means.pop("faults", 0.0):
            raise ValueError(
                f"a weight was negative, or a weight or bonus not finite, at step {self.state.global_step + 1}: one "
                f"of {', '.join(self.rules.weights_and_bonuses())} must return finite values, weights >= 0"
            )
        if self.seam.trimming.skip and ENTROPY in means:
            set_logged_entropy(self, means[ENTROPY])  # TRL did not see all tokens
        # TRL itself logs an entropy of all tokens
        self.metrics.add({name: value for name, value in means.items() if name != ENTROPY})
        # The values in force in this step; the controllers decide the next ones afterwards
        self.metrics.add({f"knobs/{name}": value for name, value in self.knobs.items()})

    # Others call these

    def step_entropy(self) -> float | None:
        """Entropy (nats) over all tokens of the last optimizer step, on all ranks; `None` if there were none."""
        return self.signal(ENTROPY)

    def signal(self, name: str) -> float | None:
        """A signal of the last optimizer step, on all ranks; `None` if it had none."""
        # TRL logs a clip ratio of 0 where no token is trained
        untrained = needs_clipping(name) and ENTROPY not in self.measures.last
        return self.measures.last.get(name) if is_measured(name) or untrained else logged_signal(self, name)

    def control_state(self) -> dict:
        """The state of all controllers and measures, and of the rollouts if there are rollout rules."""
        plan = self.seam.rollouts.plan
        rollouts = {"rollouts": plan.state_dict(not rollout_ends(self))} if plan.rules else {}
        return {"controllers": states(self.controllers), "measures": self.measures.state_dict(), **rollouts}

    def load_control_state(self, state: dict, source: str) -> None:
        """Restore all controllers and the rollouts. Raises `ValueError` if one has no state in `source`."""
        plan = self.seam.rollouts.plan
        if plan.rules or "rollouts" in state:
            plan.load_state_dict(state.get("rollouts"), source)
        if "measures" in state:
            self.measures.load_state_dict(state["measures"], source)
        load_states(self.controllers, state["controllers"], source)
