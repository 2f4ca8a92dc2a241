"""A training step of TRL with the rules in it: what is checked and observed of a rollout, and the loss."""

from collections.abc import Set

import torch
from torch import Tensor

from ..rules.tokens import Tokens
from .checkpoints import CheckpointSeam
from .compaction import LEFT_OUT
from .error import UNREAD, SeamError
from .facts import VOCABULARY, FactsSeam, LateAdvantages, per_token
from .means import OVER_ROWS, OVER_TOKENS, micro_batch_mean
from .state import check_finite, gradient_sample, set_temperature


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

    def extra_loss(self, tokens: Tokens) -> dict[bool, Tensor]:
        """
        What is added to the loss, `(B, T)` and 0 outside of the mask, by whether it is averaged as `loss_type`
        averages the surrogate or over all trained tokens of the optimizer step.
        """
        raise NotImplementedError

    def observe(self, tokens: Tokens, effective: Tensor) -> None:
        """See the raw tokens of a training micro-batch, and their advantages in the loss, `(B, T)`."""
        raise NotImplementedError

    def observe_rollout(self, rewards: Tensor, completions: list, contexts: Tensor) -> None:
        """
        See the rewards `(groups, G)` and the completions, group by group, of a training rollout on all ranks, and of
        every trained token a hash of its context, `(B, T)`, 0 elsewhere.
        """
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
        self.observe_rollout(rollout.rewards, rollout.completions, self._contexts(rollout.batch))
        return rollout.batch

    def gradient_sample(self) -> Tensor:
        """`(D,)`: some coordinates of the gradient of the optimizer step, those that this rank holds."""
        return gradient_sample(self)

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
            if effective is not raw and self._advantages_per_row:
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
        if self.compaction.skip and self.model.training and self.args.loss_type in OVER_ROWS:
            loss = loss * (len(seen.mask) / self.args.per_device_train_batch_size)
        for follows_loss_type, values in self.extra_loss(tokens).items():
            loss = loss + self._mean_of_term(values, tokens, inputs, follows_loss_type)
        return loss

    @property
    def _advantages_per_row(self) -> bool:
        """Whether the loss has one ratio for each completion, so that only the mean over its tokens acts."""
        return not self.family.per_token or self.importance_sampling_level == "sequence"

    def _observe_left_out(self, inputs: dict) -> None:
        """Measure the rows that a micro-batch leaves out, under the policy as it is at this optimizer step."""
        rows = inputs.get(LEFT_OUT)
        measured = self.measured_needs | {"group_rewards"} & self.needs()
        # Up to the first update the policy is that of the rollout, whose log-probs and entropies were taken there
        known = self._updates == 0 and "old_entropies" in inputs and not measured & VOCABULARY
        share_parameters = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if known and rows is not None:
            self._observe_without_gradient(self._facts_under_old(rows))
        elif rows is not None:
            self._observe_without_gradient(self._facts_of(self.model, rows, measured))
        elif share_parameters and not known:  # the ranks that have such rows wait for this one in their forward pass
            self._facts_of(self.model, inputs, measured)

    def _observe_without_gradient(self, tokens: Tokens) -> None:
        self.observe(tokens, torch.zeros_like(tokens.logps))

    def _mean_of_term(self, values: Tensor, tokens: Tokens, inputs: dict, follows_loss_type: bool) -> Tensor:
        loss_type = self.family.loss_type or self.args.loss_type
        corrects = self.family.has_loss_types and loss_type != "vespo"  # whose surrogate has it in its own weight
        if follows_loss_type and corrects and "importance_sampling_ratio" in inputs:
            values = values * inputs["importance_sampling_ratio"]  # as TRL corrects its surrogate for vLLM's log-probs
        if follows_loss_type and loss_type not in OVER_TOKENS:
            mean = micro_batch_mean(loss_type, values, tokens.mask, self.max_completion_length)
            return mean * self._micro_batches_divided_later / self._micro_batches
        return values.sum() / self._tokens_per_update(inputs)

    def _tokens_per_update(self, inputs: dict) -> Tensor:
        # Divided by the ranks, because DDP averages gradients: a term does not depend on how the batch is split
        of_rank = self._tokens_of_step(inputs) / self.accelerator.num_processes
        return of_rank / self._micro_batches_divided_later

    @property
    def _micro_batches(self) -> int:
        # An evaluation batch is not accumulated
        return self.current_gradient_accumulation_steps if self.model.training else 1

    @property
    def _micro_batches_divided_later(self) -> int:
        """By how many micro-batches transformers divides the loss, where TRL has not divided it."""
        return 1 if self.family.scales_loss else self._micro_batches
