"""Trainers of TRL with entropy control."""

from functools import partial

from torch import Tensor
from trl import GRPOTrainer

from ._seam import LossSeam, clipped_bounds, last_checkpoint, logged_signal, rollout_ends, set_logged_entropy
from .callbacks.controllers import EntropyController, LearningRateScale, announce, trl_knobs
from .callbacks.own import stop_views, with_own
from .callbacks.watchdog import EntropyWatchdog
from .config import SECTIONS, EntropyFlags, check_rollout_fits, with_flags
from .control.controller import load_states, states
from .control.knobs import TRAINER_KNOBS, Knobs, acting
from .control.signals import ENTROPY, needs_clipping
from .control.signals import needs as needs_of_signals
from .measures import StepMeasures
from .rewards import answers_of
from .rules import Rule, Tokens
from .rules.compose import active, effective_advantages, evaluate, faults, needs, term_sums
from .trainers import family_of


class EntropyControl(LossSeam):
    r"""
    Entropy control, mixed in before a trainer of TRL: [`with_entropy_control`] gives the class.

    $$
    A' = \Big(\prod_i w_i\Big) \hat A + \sum_j b_j, \qquad
    \mathcal{L}' = \mathcal{L}_{\text{TRL}}(A') + \sum_k \mathrm{mean}_k(t_k)
    $$

    The weights \\( w_i \\) are `token_weights`, the bonuses \\( b_j \\) `advantage_bonuses`, the terms \\( t_k \\)
    `loss_terms`, each with its own mean: as `loss_type` averages, or over all trained tokens. With none of them set
    the loss and its gradient are TRL's, bit for bit.

    Attributes:
        knobs ([`~knobs.Knobs`]): every scalar that a controller may turn, by name; set one and it acts at the next
            loss.

    Raises `TypeError` if `args` is TRL's config, and [`SeamError`] if TRL's loss can no longer be reached.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.family = family_of(cls)

    def __init__(self, model, reward_funcs=None, args: EntropyFlags | None = None, train_dataset=None, **kwargs):
        config = self.family.config_class()
        args = with_flags(config)() if args is None else args
        if getattr(args, "family", None) is not self.family:
            raise TypeError(
                f"args must be an {with_flags(config).__name__}, which takes the same arguments; got {type(args)}. "
                f"with_entropy_control({config.__name__}) is that class"
            )
        check_rollout_fits(args, train_dataset, kwargs)
        kwargs["callbacks"] = with_own(kwargs.get("callbacks"), args.live_view)
        given = {"reward_funcs": reward_funcs, "train_dataset": train_dataset}
        kwargs |= {name: value for name, value in given.items() if value is not None}
        super().__init__(model=model, args=args, **kwargs)
        self.token_weights, self.advantage_bonuses, self.loss_terms = args.build_rules().values()
        self.use_plan(args.build_rollout_plan(self.train_dataset, self.reward_func_names))
        self.compact_steps(args.compaction)
        self.knobs = self._build_knobs()
        self.controllers = args.build_controllers()
        of_steps = self.signal, self.log_means, partial(rollout_ends, self), partial(clipped_bounds, self)
        self.add_callback(EntropyController(self.controllers, self.knobs, *of_steps))
        self._signals = {controller.signal for controller in self.controllers if controller.law.uses_target}
        self._new_measures = partial(StepMeasures, args.entropy_measures, self._signals, args.build_slopes())
        self.measures = self._new_measures()
        self.measured_needs = self.measures.needs | needs_of_signals(self._signals)

    def _build_knobs(self) -> Knobs:
        knobs = trl_knobs(self)
        temperature, learning_rate_scale = TRAINER_KNOBS[-2:]
        knobs.add(temperature, lambda: self.temperature, self.plan_temperature)
        self.add_callback(scale := LearningRateScale())
        knobs.add(learning_rate_scale, partial(getattr, scale, "value"), partial(setattr, scale, "value"))
        for section in SECTIONS:
            knobs.add_rules(section, getattr(self, section))
        return knobs

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """TRL's; `True` resumes from the last checkpoint that was written to its end."""
        if self.accelerator.is_main_process:
            announce(self.args, self.controllers)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir) or True
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EntropyWatchdog):
                callback.attach(self)
        # Nothing is left of an earlier call: a resumed run takes its state from the checkpoint
        self.begin_run(self.args.build_rollout_plan(self.train_dataset, self.reward_func_names))
        self.measures = self._new_measures()
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            stop_views(self.callback_handler.callbacks)

    def needs(self) -> set[str]:
        """What the active rules read besides the facts that are always there."""
        # A controller may make a rule active in the middle of a rollout batch
        turned = {controller.knob.name for controller in self.controllers}
        return needs(
            *(self._active(section) | acting(section, getattr(self, section), turned) for section in SECTIONS)
        )

    def _active(self, section: str) -> dict[str, Rule]:
        """The rules of a section that change anything, or whose tokens a controller looks at."""
        rules = getattr(self, section)
        watched = {name for name in rules if f"{ENTROPY}/{section}.{name}" in self._signals}
        return active(rules) | {name: rules[name] for name in watched}

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """`A'`, `(B, T)`; `raw` itself if no weight and no bonus is active."""
        weights, bonuses = self._active("token_weights"), self._active("advantage_bonuses")
        if not weights and not bonuses:
            return raw
        weights = evaluate("token_weights", weights, tokens)
        bonuses = evaluate("advantage_bonuses", bonuses, tokens)
        if self.model.training:
            self.measures.add({"faults": (faults(tokens, weights, bonuses), tokens.mask.sum())})
            self.measures.add_rules("token_weights", weights, tokens)
            self.measures.add_rules("advantage_bonuses", bonuses, tokens)
        return effective_advantages(tokens, weights, bonuses)

    def extra_loss(self, tokens: Tokens) -> dict[bool, Tensor]:
        """The loss terms added up, `(B, T)`, by whether they follow `loss_type`; empty if no term is active."""
        rules = self._active("loss_terms")
        terms = evaluate("loss_terms", rules, tokens)
        if self.model.training:
            self.measures.add_rules("loss_terms", terms, tokens)
        return term_sums(tokens, rules, terms)

    def observe(self, tokens: Tokens, effective: Tensor) -> None:
        """Measure a training micro-batch."""
        self.measures.add_tokens(tokens, effective)

    def observe_rollout(self, rewards: Tensor, completions: list, contexts: Tensor) -> None:
        """Log what a training rollout holds."""
        self.log_means(self.measures.of_rollout(rewards, lambda: answers_of(completions, self.reward_funcs), contexts))

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self._end_optimizer_step()
        return loss

    def _end_optimizer_step(self) -> None:
        self.measures.add_gradient(self.gradient_sample())
        means = self.measures.end_step(self._sum_over_ranks)
        if means.pop("faults", 0.0):
            raise ValueError(
                f"a weight was negative, or a weight or bonus not finite, at step {self.state.global_step}: one of "
                f"{', '.join([*self.token_weights, *self.advantage_bonuses])} must return finite values, weights >= 0"
            )
        if self.compaction.skip and ENTROPY in means:
            set_logged_entropy(self, means[ENTROPY])  # TRL has not seen all tokens
        # TRL logs an entropy of all tokens itself
        self.log_means({name: value for name, value in means.items() if name != ENTROPY})
        # The values that were in force in this step; the controllers decide those of the next after it
        self.log_means({f"knobs/{name}": value for name, value in self.knobs.items()})

    def step_entropy(self) -> float | None:
        """Entropy (nats) over all tokens of the last optimizer step, on all ranks; `None` if there were none."""
        return self.signal(ENTROPY)

    def signal(self, name: str) -> float | None:
        """A signal of the last optimizer step, on all ranks; `None` if it had none."""
        # TRL logs a clip ratio of 0 where no token is trained
        measured = name.startswith(ENTROPY) or (needs_clipping(name) and ENTROPY not in self.measures.last)
        return self.measures.last.get(name) if measured else logged_signal(self, name)

    def control_state(self) -> dict:
        """The state of every controller, of the measures, and of the rollouts if a rule decides about them."""
        rollouts = {"rollouts": self.plan.state_dict(not rollout_ends(self))} if self.plan.rules else {}
        return {"controllers": states(self.controllers), "measures": self.measures.state_dict(), **rollouts}

    def load_control_state(self, state: dict, source: str) -> None:
        """Continue every controller and the rollouts. Raises `ValueError` if one has no state in `source`."""
        if self.plan.rules or "rollouts" in state:
            self.plan.load_state_dict(state.get("rollouts"), source)
        if "measures" in state:
            self.measures.load_state_dict(state["measures"], source)
        load_states(self.controllers, state["controllers"], source)


class EntropyGRPOTrainer(EntropyControl, GRPOTrainer):
    """TRL's [`~trl.GRPOTrainer`] with [`EntropyControl`]; the arguments are TRL's, `args` an [`EntropyGRPOConfig`]."""
