"""The methods of TRL's trainers that the seam takes part in."""

from functools import partial
from typing import Any

from . import checkpoints
from .packed import versioned_dataloader
from .seam import Seam


class Hooks:
    """A mixin before a TRL trainer: each method passes TRL's own method to the seam."""

    seam: Seam
    reward_func_names: Any = ()  # AsyncGRPOTrainer has none

    def training_step(self, *args, **kwargs):
        return self.seam.training_step(super().training_step, *args, **kwargs)

    def _prepare_inputs(self, generation_batch):
        return self.seam.prepare(super()._prepare_inputs, generation_batch)

    def _generate_and_score_completions(self, inputs):
        return self.seam.rollout(super()._generate_and_score_completions, inputs)

    def _generate(self, prompts):
        return self.seam.rollouts.generate(super()._generate, prompts)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids):
        score = super()._calculate_rewards
        return self.seam.rollouts.score(score, inputs, prompts, completions, completion_ids)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        return self.seam.forward(super()._get_per_token_logps_and_entropies, *args, **kwargs)

    def _compute_loss(self, model, inputs):
        return self.seam.loss(super()._compute_loss, model, inputs)

    def compute_loss(self, model, inputs, *args, **kwargs):
        compute = partial(super().compute_loss, **kwargs)
        return self.seam.loss(compute, model, inputs) if self.family.packed else compute(model, inputs, *args)

    def trl_loss(self, model, inputs):
        """TRL's own loss."""
        return super().compute_loss(model, inputs) if self.family.packed else super()._compute_loss(model, inputs)

    def get_train_dataloader(self):
        make = super().get_train_dataloader
        return versioned_dataloader(self, make) if self.family.packed else make()

    def get_batch_samples(self, *args, **kwargs):
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.seam.facts.batches = batches
        return batches, items

    def _save_checkpoint(self, model, trial):
        checkpoints.save(self, super()._save_checkpoint, model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        checkpoints.load(self, checkpoint)
