"""A trainer that generates its next rollout in a background thread, as Axolotl's asynchronous one does."""

import threading

import torch

from .hooks import Hooks


class WholeRollouts:
    """A mixin before such a trainer: keeps the micro-batches of a rollout, which the trainer takes out one by one."""

    def _prepare_inputs(self, generation_batch):
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        size = self.args.steps_per_generation
        if self._step % (size * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = None
            first = super()._prepare_inputs(generation_batch)
            self._buffered_inputs = [first, *self._buffered_inputs][:size]
        return self._buffered_inputs[self._step % size]


class Prefetching:
    """A mixin before [`~hooks.Hooks`]: the seam sees a rollout when it is scored, in the main thread."""

    def _generate(self, prompts):
        if threading.current_thread() is threading.main_thread():
            return super()._generate(prompts)
        return super(Hooks, self)._generate(prompts)  # the seam is at work on the rollout before this one

    def _generate_only(self, inputs, rank0_only=False):
        version = max(0, self._last_synced_step) if self.use_vllm else self.state.global_step
        return {**super()._generate_only(inputs, rank0_only), "_deferred_version": version}

    def _compute_deferred_scores(self, rollout):
        deferred = super()._compute_deferred_scores
        version = rollout.pop("_deferred_version", self.state.global_step)  # a producer of NeMo Gym's gives none
        # Axolotl's own is an int, which TRL's shuffle and split do not take
        rollout["num_items_in_batch"] = torch.as_tensor(rollout["num_items_in_batch"], device=self.accelerator.device)

        def score(rows: list[dict]) -> dict:
            if "tool_mask" in rollout:
                lengths = map(len, rollout["_deferred_completion_ids_list"])
                masks = zip(rollout["tool_mask"].tolist(), lengths, strict=True)
                self.seam.rollouts.sampling.env_mask = [mask[:length] for mask, length in masks]
            return deferred(rollout)

        batch = self.seam.rollout(score, rollout["_deferred_inputs"])
        self.seam.updates = self.state.global_step - version
        return batch
