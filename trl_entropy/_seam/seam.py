"""A TRL training step with the rules in it, in order of time: rollout, facts, rules, loss, end of the step."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from ..measures import contexts
from ..rollouts import RolloutPlan
from ..rollouts.batch import picked
from ..rules.tokens import Tokens
from .error import UNREAD, UNSUPPORTED, SeamError
from .facts import VOCABULARY, Facts, Step, per_token
from .head import SMALL, has_tiles, patched_head
from .means import OVER_ROWS, OVER_TOKENS
from .packed import PackedFacts
from .rollouts import Rollout, Rollouts
from .state import check_finite, set_temperature
from .trimming import LEFT_OUT, Trimming, check_trimming, prepared, trained_mask
from .vocabulary import check_whole_head


logger = logging.getLogger(__name__)


class Seam:
    """
    Connects a TRL trainer with its rules. [`~hooks.Hooks`] passes TRL's methods to it.

    It calls the trainer in this order: `needs()`, `measured_needs`, `observe_rollout(...)`,
    `effective_advantages(raw, tokens)`, `observe(tokens, effective)`, `extra_loss(tokens)`, `end_step()`. Values to
    log go into the trainer's `metrics`.

    Args:
        trainer: the trainer.

    Attributes:
        rollouts ([`~rollouts.Rollouts`]): samples rollouts.
        facts ([`~facts.Facts`]): collects the facts of a micro-batch's tokens.
        step ([`~facts.Step`] or `None`): the current optimizer step.
        updates (`int`): number of optimizer steps since completions were generated.
        next_temperature (`float` or `None`): the temperature of the next rollout, if it changes.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.rollouts = Rollouts(trainer, self._add_facts)
        self.facts = (PackedFacts if trainer.family.packed else Facts)(trainer, self.rollouts)
        self.trimming = Trimming()
        self.step: Step | None = None
        self.updates = 0
        self.next_temperature: float | None = None
        self._last_pool = None  # if pooling is lagged, the pool of the previous step

    def use(self, plan: RolloutPlan, trimming: Trimming) -> None:
        """Sample by this plan, and trim steps this way. Raises `ValueError` if model or trainer do not allow it."""
        check_trimming(self.trainer, trimming)
        check_whole_head(self.trainer, self.trainer.needs())
        self.rollouts.use(plan)
        self.trimming = trimming

    def begin_run(self, plan: RolloutPlan) -> None:
        """Forget the previous run, and sample by a new plan with the same rules."""
        self.rollouts.plan, self.step, self._last_pool = plan, None, None

    def patched(self) -> AbstractContextManager:
        """A context for a run, with the patches of TRL's LM head that the config sets."""
        trainer = self.trainer
        vocabulary = trainer.model.config.get_text_config().vocab_size
        wants, small = trainer.args.small_lm_head_tiles, trainer.args.use_cpu and vocabulary > SMALL and has_tiles()
        if wants and not small:
            logger.warning(
                "small_lm_head_tiles does nothing here: it needs a CPU (use_cpu), a vocabulary above %d, here %d, "
                "and TRL >= 1.15",
                *(SMALL, vocabulary),
            )
        elif small and not wants:
            logger.info(
                "on a CPU, small_lm_head_tiles=true makes the LM head two to three times as fast, with results equal "
                "up to rounding"
            )
        return patched_head(trainer.accelerator.device, wants and small, self.trimming.head)

    # A step begins

    def training_step(self, train: Callable, *args, **kwargs) -> Tensor:
        """TRL's training step for one micro-batch. Raises [`SeamError`] if its loss came from elsewhere."""
        self.step = self.step or self._new_step(training=True)  # TRL has not yet put the model into training mode
        self.step.reached = False
        loss = train(*args, **kwargs)
        if not self.step.reached:
            raise SeamError(
                "TRL trained without calling `_compute_loss`, so no rule could act: set use_liger_kernel=False"
            )
        if self.trainer.accelerator.sync_gradients:
            self._end_step()
        return loss

    def _new_step(self, training: bool = False) -> Step:
        measured, pool = (self.trainer.measured_needs, self._last_pool) if training else (frozenset(), None)
        return Step(self.trainer.needs(), measured, pool)

    def prepare(self, prepare: Callable, generation_batch) -> dict:
        """TRL's next micro-batch, trimmed."""
        return prepared(self.trainer, prepare, generation_batch, self.trimming)

    # Its rollout

    def rollout(self, generate_and_score: Callable[[list[dict]], dict], inputs: list[dict]) -> dict:
        """TRL's batch of completions with their rewards and additional facts."""
        trainer = self.trainer
        if not trainer.model.training:
            return self.rollouts.sample(generate_and_score, inputs).batch
        if self.next_temperature is not None:
            set_temperature(trainer, self.next_temperature)
            self.next_temperature = None
        check_finite(trainer.model, trainer.state.global_step, trainer.accelerator)
        rollout = self.rollouts.planned(generate_and_score, inputs)
        self.updates = 0
        trainer.observe_rollout(rollout.rewards, rollout.completions, partial(self._contexts, rollout.batch))
        return rollout.batch

    def _add_facts(self, rollout: Rollout) -> None:
        """Add facts to the batch of a rollout; TRL shuffles and splits them with the rest."""
        trainer, batch, groups = self.trainer, rollout.batch, rollout.rewards
        needs = self.step.needs if self.step else trainer.needs()
        mine = self.rollouts.of_this_rank(len(batch["completion_mask"]))
        batch["rewards"] = groups.flatten()[mine]
        if "group_rewards" in needs:
            batch["group_rewards"] = groups.repeat_interleave(groups.shape[1], dim=0)[mine]
        if "num_items_in_batch" not in batch:
            batch["num_items_in_batch"] = trainer.accelerator.gather(batch["completion_mask"].sum()).sum()
        old_logps, old_entropies = rollout.old or (None, None)
        if not trainer.family.keeps_old_logps:
            if old_logps is None:
                raise SeamError(
                    f"{trainer.family.name} did not compute log-probs of the policy that sampled. {UNSUPPORTED}"
                )
            batch["old_per_token_logps"] = old_logps
        if old_entropies is not None and batch.get("old_per_token_logps") is old_logps:
            batch["old_entropies"] = old_entropies
        if "group_logps" in needs:
            means = trainer.accelerator.gather(self._mean_logps(batch)).view(groups.shape)
            batch["group_logps"] = means.repeat_interleave(groups.shape[1], dim=0)[mine]

    def _mean_logps(self, batch: dict) -> Tensor:
        """`(B,)`: the mean log-prob of each completion under the policy that sampled it; NaN without a token."""
        logps = batch.get("old_per_token_logps")
        if logps is None:  # TRL computes none if the policy is not updated before it trains on all of them
            if "pixel_values" in batch:
                raise ValueError(
                    "a rule reads the log-probs of the group, which only exist for text problems, but these have "
                    "images: drop it, or set its scope to step"
                )
            size, rows = self.trainer.args.per_device_train_batch_size, len(batch["completion_ids"])
            parts = [picked(batch, slice(start, start + size)) for start in range(0, rows, size)]
            logps = torch.cat([self.facts.look(self.trainer.model, part, set()).logps for part in parts])
        mask = trained_mask(batch).bool()
        return torch.where(mask, logps.float(), 0.0).sum(1) / mask.sum(1)

    def _contexts(self, batch: dict) -> Tensor:
        """`(B, T)` int64, of all ranks: a hash of every trained token's context, 0 elsewhere."""
        accelerator, columns = self.trainer.accelerator, ("prompt_ids", "prompt_mask", "completion_ids")
        # Contexts are text, so rows with images have none
        known = trained_mask(batch).bool() & ("pixel_values" not in batch)
        hashes = contexts(*(batch[name] for name in (*columns, "completion_mask"))).masked_fill(~known, 0)
        return accelerator.gather(accelerator.pad_across_processes(hashes, dim=1))

    # Its losses

    def forward(self, forward: Callable[..., tuple], *args, **kwargs) -> tuple:
        """TRL's log-probs and entropies; outside a loss, this is also called for the old and the reference policy."""
        results, sampling = self.facts.results, self.rollouts.sampling
        of_policy = bool(args) and args[0] is self.trainer.model  # the reference model's head gives no entropies
        of_old = results is None and of_policy and sampling is not None and sampling.old is None
        if of_old and ("old_entropies" in (self.step or self._new_step()).needs or self.trimming.skip):
            kwargs["compute_entropy"] = True
        with self.rollouts.tempered():
            outputs = forward(*args, **kwargs)  # TRL < 1.7 returns two values
        if results is not None:
            results.logps, results.entropies = outputs[:2]
        elif of_old:
            sampling.old = outputs[0], outputs[1]
        return outputs

    def loss(self, compute_loss: Callable, model, inputs: dict) -> Tensor:
        """TRL's loss with the effective advantages, plus the loss terms."""
        trainer, training = self.trainer, self.trainer.model.training
        step = self.step if training and self.step else self._new_step(training)
        if training and self.trimming.skip:
            self._observe_left_out(inputs, step)
        if "entropy_gradient" in step.needs:
            trainer._entropy_bonus_enabled = True  # without its bonus, TRL < 1.15 computes entropies without gradient
        if "pool" in step.needs and training and step.pool is None and trainer.args.pooling == "exact":
            step.pool = self.facts.look_ahead(model, step.needs)
        needs = step.needs | step.measured
        tokens = detached = effective = raw_advantages = None

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens, detached, effective, raw_advantages
            raw_advantages = raw
            tokens = self.facts.tokens(inputs, raw, needs, step)
            detached = tokens.detach()
            effective = trainer.effective_advantages(raw, detached)
            level = getattr(trainer, "importance_sampling_level", "token")
            per_row = not trainer.family.per_token or level == "sequence"
            if effective is not raw and per_row:  # one ratio per completion: only the mean over its tokens acts
                effective = detached.mean_over_row(effective)
            return effective

        with self.facts.keeping_results(inputs, needs):
            loss = self.facts.loss(compute_loss, model, inputs, decide)
        if tokens is None:
            raise SeamError(UNREAD)
        step.reached = True
        if training:
            advantages = detached.advantages if effective is raw_advantages else per_token(effective, detached.mask)
            if "importance_sampling_ratio" in inputs:  # with vLLM, TRL multiplies each token's loss by it
                advantages = advantages * inputs["importance_sampling_ratio"]
            trainer.observe(detached, advantages)
        if training and self.trimming.skip and trainer.args.loss_type in OVER_ROWS:
            loss = loss * (len(detached.mask) / trainer.args.per_device_train_batch_size)
        for follows_loss_type, values in trainer.extra_loss(tokens).items():
            loss = loss + self._mean_of_term(values, tokens, inputs, follows_loss_type)
        return loss

    def _observe_left_out(self, inputs: dict, step: Step) -> None:
        """Measure the rows that a micro-batch leaves out, under the policy of this optimizer step."""
        trainer, rows = self.trainer, inputs.get(LEFT_OUT)
        measured = step.measured | {"group_rewards"} & step.needs
        # Until the first update the policy is the rollout's, whose log-probs and entropies are known
        known = self.updates == 0 and "old_entropies" in inputs and not measured & VOCABULARY
        share_parameters = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        if rows is not None:
            tokens = self.facts.under_old(rows) if known else self.facts.look(trainer.model, rows, measured)
            trainer.observe(tokens, torch.zeros_like(tokens.logps))
        elif share_parameters and not known:  # ranks with such rows wait for this rank in their forward pass
            self.facts.look(trainer.model, inputs, measured)

    def _mean_of_term(self, values: Tensor, tokens: Tokens, inputs: dict, follows_loss_type: bool) -> Tensor:
        trainer = self.trainer
        loss_type = trainer.family.loss_type or trainer.args.loss_type
        # An evaluation batch is not accumulated
        micro_batches = trainer.current_gradient_accumulation_steps if trainer.model.training else 1
        divided_later = 1 if trainer.family.scales_loss else micro_batches  # by transformers
        # Vespo's surrogate includes the ratio in its own weight
        corrects = trainer.family.has_loss_types and loss_type != "vespo"
        if follows_loss_type and corrects and "importance_sampling_ratio" in inputs:
            values = values * inputs["importance_sampling_ratio"]  # as TRL corrects its surrogate for vLLM's log-probs
        if follows_loss_type and loss_type not in OVER_TOKENS:
            mean = self.facts.micro_batch_mean(loss_type, values, tokens, inputs)
            return mean * divided_later / micro_batches
        # Divided by the number of ranks, because DDP averages gradients: so a term does not depend on how the batch is
        # split
        of_rank = self.facts.num_tokens_of_step(inputs) / trainer.accelerator.num_processes
        return values.sum() / (of_rank / divided_later)

    # Its end: all gradients are there, but the optimizer has not stepped yet

    def _end_step(self) -> None:
        self._last_pool = self.step.next_pool
        self.updates += 1
        self.step = None
        self.trainer.end_step()
