"""A training step of TRL with the rules in it: what is checked and observed of a rollout, and the loss."""

from collections.abc import Set

import torch
from torch import Tensor

from ..tokens import Tokens
from .checkpoints import CheckpointSeam
from .compaction import LEFT_OUT
from .error import UNREAD, SeamError
from .facts import VOCABULARY, FactsSeam, LateAdvantages, per_token
from .state import check_finite, set_temperature


# Losses that are a mean over the rows of a micro-batch; the others are a sum over a number that is given
MEAN_OVER_ROWS = ("dr_grpo", "grpo", "luspo", "sapo")


class LossSeam(CheckpointSeam, FactsSeam):
    """Mixed in before a TRL trainer that computes its loss as `GRPOTrainer` does."""

    # Whether the loss of this training step came through the seam
    _reached = False
    # What the next rollout is sampled at; None if it stays as it is
    _next_temperature: float | None = None
    # What `observe` reads besides the facts that are always there
    measured_needs: Set[str] = frozenset()
    # Optimizer steps since completions were generated
    _updates = 0

    def effective_advantages(self, raw: Tensor, tokens: Tokens) -> Tensor:
        """What TRL's loss gets instead of `raw`: `(B, T)`, or `raw` itself."""
        raise NotImplementedError

    def extra_loss(self, tokens: Tokens) -> Tensor | None:
        """Sum over tokens to be added to the loss, or `None`."""
        raise NotImplementedError

    def observe(self, tokens: Tokens, effective: Tensor) -> None:
        """See the raw tokens of a training micro-batch, and their advantages in the loss, `(B, T)`."""
        raise NotImplementedError

    def observe_rollout(self, rewards: Tensor, completions: list) -> None:
        """See the rewards `(groups, G)` and the completions, group by group, of a training rollout on all ranks."""
        raise NotImplementedError

    def training_step(self, *args, **kwargs):
        """TRL's, and a `SeamError` if it took its loss from elsewhere."""
        self._reached = False
        loss = super().training_step(*args, **kwargs)
        if not self._reached:
            raise SeamError(
                "TRL trained without calling `_compute_loss`, so no rule could act: set use_liger_kernel=False"
            )
        if self.accelerator.sync_gradients:
            self._end_pool()
            self.log_means({"staleness/updates": self._updates})
            self._updates += 1
        return loss

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            return self._sample(inputs).batch
        if self._next_temperature is not None:
            set_temperature(self, self._next_temperature)
            self._next_temperature = None
        check_finite(self.model, self.state.global_step, self.accelerator)
        rollout = self._sample_planned(inputs)
        self._updates = 0
        self.observe_rollout(rollout.rewards, rollout.completions)
        return rollout.batch

    def plan_temperature(self, value: float) -> None:
        """Sample the next rollout at this temperature, and score it at that."""
        self._next_temperature = value

    def _compute_loss(self, model, inputs):
        if self.compaction.skip and self.model.training:
            self._observe_left_out(inputs)
        tokens = seen = effective = None
        needs = self.needs()
        if "entropy_gradient" in needs:
            self._entropy_bonus_enabled = True  # without its bonus TRL < 1.15 takes entropies without gradient
        self._fill_pool(model, needs)
        if self.model.training:
            needs = needs | self.measured_needs

        def decide(raw: Tensor) -> Tensor:
            nonlocal tokens, seen, effective
            tokens = self._tokens(inputs, raw, needs)
            seen = tokens.detach()
            effective = self.effective_advantages(raw, seen)
            if effective is not raw and not self.family.per_token:
                effective = seen.mean_over_row(effective)
            return effective

        with self._capture(needs), self._at(inputs.get("temperatures")):
            loss = super()._compute_loss(model, LateAdvantages(inputs, decide))
        if tokens is None:
            raise SeamError(UNREAD)
        self._reached = True
        if self.model.training:
            as_given = effective is inputs["advantages"]
            advantages = seen.advantages if as_given else per_token(effective, seen.mask)
            if "importance_sampling_ratio" in inputs:  # with vLLM; TRL multiplies the loss of each token by it
                advantages = advantages * inputs["importance_sampling_ratio"]
            self.observe(seen, advantages)
        if self.compaction.skip and self.model.training and self.args.loss_type in MEAN_OVER_ROWS:
            loss = loss * (len(seen.mask) / self.args.per_device_train_batch_size)
        extra = self.extra_loss(tokens)
        return loss if extra is None else loss + extra / self._tokens_per_update(inputs)

    def _observe_left_out(self, inputs: dict) -> None:
        """Measure the rows that a micro-batch leaves out: from the log-probs of the old policy, or a forward pass."""
        rows = inputs.get(LEFT_OUT)
        if rows is None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return
        measured = self.measured_needs | {"group_rewards"} & self.needs()
        if rows is not None and "old_entropies" in rows and not measured & VOCABULARY:
            tokens = self._facts_under_old(rows)
        else:  # where ranks share the parameters each takes the pass, with or without rows of its own
            tokens = self._facts_of(self.model, inputs if rows is None else rows, measured)
        if rows is not None:
            self.observe(tokens, torch.zeros_like(tokens.logps))

    def _tokens_per_update(self, inputs: dict) -> Tensor:
        # Tokens of one optimizer step, divided by the ranks because DDP averages gradients: what TRL's dapo loss
        # divides by, so that a term does not depend on how the batch is split. transformers divides a loss that TRL
        # has not scaled by the number of micro-batches
        total = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if not self.model.training:  # an evaluation batch is neither split nor accumulated
            return total
        micro_batches = self.current_gradient_accumulation_steps if self.family.scales_loss else 1
        return total * micro_batches / self.args.steps_per_generation
